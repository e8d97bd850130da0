//! Virtual functions for Python. The GIL is released while the kernel works.

use std::path::PathBuf;

use meshwright_forwarder::sriov::{Given, Listed, PhysicalFunction, Pool, Served, Sysfs, VirtualFunction, Wire};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::forwarder::{KernelPort, parse_mac, side_dict, to_python};

/// The physical functions of this machine, or of a device tree that looks like it.
#[pyfunction]
pub(crate) fn physical_functions<'py>(py: Python<'py>, root: PathBuf) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let found = py.detach(|| Sysfs::at(root).physical_functions()).map_err(to_python)?;
    found.iter().map(|function| physical_dict(py, function)).collect()
}

/// The virtual functions that the forwarder gives to connections.
#[pyclass(frozen)]
pub(crate) struct FunctionPool(Pool);

#[pymethods]
impl FunctionPool {
    /// `served`: device, number of functions, services, driver.
    #[new]
    fn new(py: Python<'_>, served: Vec<(String, u16, Vec<String>, Option<String>)>, root: PathBuf) -> PyResult<Self> {
        let served: Vec<_> = served
            .into_iter()
            .map(|(device, functions, services, driver)| Served {
                device,
                functions,
                services,
                driver,
            })
            .collect();
        let pool = py.detach(|| Pool::open(Sysfs::at(root), &served)).map_err(to_python)?;
        Ok(Self(pool))
    }

    fn restore(&self, id: &str, address: &str) -> bool {
        self.0.restore(id, address)
    }

    fn settle(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.0.settle()).map_err(to_python)
    }

    fn give_interface<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        service: &str,
        mac: &str,
        vlan: u16,
        port: &KernelPort,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (wire, port) = (wire(mac, vlan)?, port.to_port());
        let given = py
            .detach(|| self.0.give_interface(id, service, wire, &port))
            .map_err(to_python)?;
        given_dict(py, &given)
    }

    fn give_device<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        service: &str,
        mac: &str,
        vlan: u16,
    ) -> PyResult<Bound<'py, PyDict>> {
        let wire = wire(mac, vlan)?;
        let given = py.detach(|| self.0.give_device(id, service, wire)).map_err(to_python)?;
        given_dict(py, &given)
    }

    fn give_back(&self, py: Python<'_>, id: &str) -> PyResult<()> {
        py.detach(|| self.0.give_back(id)).map_err(to_python)
    }

    fn fallen(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.fallen())
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let listed = py.detach(|| self.0.list()).map_err(to_python)?;
        listed.iter().map(|listed| listed_dict(py, listed)).collect()
    }
}

fn wire(mac: &str, vlan: u16) -> PyResult<Wire> {
    Ok(Wire {
        mac: parse_mac("mac", mac)?,
        vlan,
    })
}

fn physical_dict<'py>(py: Python<'py>, function: &PhysicalFunction) -> PyResult<Bound<'py, PyDict>> {
    let functions: Vec<_> = function
        .functions
        .iter()
        .map(|function| virtual_dict(py, function))
        .collect::<PyResult<_>>()?;
    let dict = PyDict::new(py);
    dict.set_item("address", &function.address)?;
    dict.set_item("model", &function.model)?;
    dict.set_item("driver", &function.driver)?;
    dict.set_item("interface", &function.interface)?;
    dict.set_item("total", function.total)?;
    dict.set_item("functions", functions)?;
    Ok(dict)
}

fn virtual_dict<'py>(py: Python<'py>, function: &VirtualFunction) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("address", &function.address)?;
    dict.set_item("driver", &function.driver)?;
    dict.set_item("iommu_group", function.iommu_group)?;
    dict.set_item("interface", &function.interface)?;
    Ok(dict)
}

fn listed_dict<'py>(py: Python<'py>, listed: &Listed) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("physical", &listed.physical)?;
    dict.set_item("function", virtual_dict(py, &listed.function)?)?;
    dict.set_item("services", &listed.services)?;
    dict.set_item("holder", &listed.holder)?;
    Ok(dict)
}

fn given_dict<'py>(py: Python<'py>, given: &Given) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("address", &given.address)?;
    dict.set_item("iommu_group", given.iommu_group)?;
    dict.set_item("side", given.side.as_ref().map(|side| side_dict(py, side)).transpose()?)?;
    Ok(dict)
}
