//! The packet forwarder for Python. The GIL is released while the kernel works.

use std::os::fd::{BorrowedFd, RawFd};

use meshwright_forwarder::{Connected, Error, Namespace, Neighbor, Route, Side};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

create_exception!(
    _native,
    ForwarderError,
    PyException,
    "The kernel refused a step of a cross-connect."
);

pub(crate) fn to_python(error: Error) -> PyErr {
    match error {
        Error::Invalid { .. } => PyValueError::new_err(error.to_string()),
        Error::Unknown(_) => PyKeyError::new_err(error.to_string()),
        Error::Kernel { .. } | Error::Full(_) | Error::InUse(_) => ForwarderError::new_err(error.to_string()),
    }
}

fn namespace_of(netns_fd: RawFd) -> PyResult<Namespace> {
    if netns_fd < 0 {
        return Err(PyValueError::new_err("netns_fd: a descriptor isn't negative"));
    }
    // SAFETY: the descriptor is only borrowed for the duplication below; a number that isn't open gives EBADF.
    let descriptor = unsafe { BorrowedFd::borrow_raw(netns_fd) }.try_clone_to_owned()?;
    Namespace::new(descriptor).map_err(to_python)
}

/// A kernel interface in the network namespace behind a descriptor, which is duplicated.
#[pyclass(frozen)]
pub(crate) struct KernelPort {
    namespace: Namespace,
    interface: String,
    addresses: Vec<ipnet::IpNet>,
    routes: Vec<Route>,
    neighbors: Vec<Neighbor>,
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
}

#[pymethods]
impl KernelPort {
    #[new]
    #[pyo3(signature = (netns_fd, interface, *, addresses, routes, neighbors, mac, mtu))]
    fn new(
        netns_fd: RawFd,
        interface: String,
        addresses: Vec<String>,
        routes: Vec<(String, Option<String>)>,
        neighbors: Vec<(String, String)>,
        mac: Option<String>,
        mtu: Option<u32>,
    ) -> PyResult<Self> {
        Ok(Self {
            namespace: namespace_of(netns_fd)?,
            interface,
            addresses: parse_all("addresses", addresses)?,
            routes: routes
                .into_iter()
                .enumerate()
                .map(|(index, (prefix, hop))| {
                    Ok(Route {
                        prefix: parse("routes", index, &prefix)?,
                        next_hop: hop.map(|hop| parse("routes", index, &hop)).transpose()?,
                    })
                })
                .collect::<PyResult<_>>()?,
            neighbors: neighbors
                .into_iter()
                .enumerate()
                .map(|(index, (ip, mac))| {
                    Ok(Neighbor {
                        ip: parse("neighbors", index, &ip)?,
                        mac: parse_mac("neighbors", &mac)?,
                    })
                })
                .collect::<PyResult<_>>()?,
            mac: mac.map(|mac| parse_mac("mac", &mac)).transpose()?,
            mtu,
        })
    }
}

impl KernelPort {
    pub(crate) fn to_port(&self) -> meshwright_forwarder::KernelPort {
        meshwright_forwarder::KernelPort {
            namespace: self.namespace.clone(),
            interface: self.interface.clone(),
            addresses: self.addresses.clone(),
            routes: self.routes.clone(),
            neighbors: self.neighbors.clone(),
            mac: self.mac,
            mtu: self.mtu,
        }
    }
}

/// Makes, remembers and removes cross-connects.
#[pyclass(frozen)]
#[derive(Default)]
pub(crate) struct Forwarder(meshwright_forwarder::Forwarder);

#[pymethods]
impl Forwarder {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn connect<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        client: &KernelPort,
        endpoint: &KernelPort,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (client, endpoint) = (client.to_port(), endpoint.to_port());
        let connected = py.detach(|| self.0.connect(id, client, endpoint)).map_err(to_python)?;
        to_dict(py, &connected)
    }

    fn close(&self, py: Python<'_>, id: &str) -> PyResult<()> {
        py.detach(|| self.0.close(id)).map_err(to_python)
    }

    fn remove(&self, py: Python<'_>, id: &str, netns_fd: RawFd) -> PyResult<()> {
        let namespace = namespace_of(netns_fd)?;
        py.detach(|| self.0.remove(id, &namespace)).map_err(to_python)
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let open = py.detach(|| self.0.list());
        open.iter().map(|connected| to_dict(py, connected)).collect()
    }
}

fn to_dict<'py>(py: Python<'py>, connected: &Connected) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", &connected.id)?;
    dict.set_item("client", side_dict(py, &connected.client)?)?;
    dict.set_item("endpoint", side_dict(py, &connected.endpoint)?)?;
    Ok(dict)
}

pub(crate) fn side_dict<'py>(py: Python<'py>, side: &Side) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let mac: Vec<String> = side.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    dict.set_item("interface", &side.interface)?;
    dict.set_item("mac", mac.join(":"))?;
    dict.set_item("rx_packets", side.counters.rx_packets)?;
    dict.set_item("tx_packets", side.counters.tx_packets)?;
    dict.set_item("rx_bytes", side.counters.rx_bytes)?;
    dict.set_item("tx_bytes", side.counters.tx_bytes)?;
    Ok(dict)
}

fn parse_all<T: std::str::FromStr>(field: &str, texts: Vec<String>) -> PyResult<Vec<T>>
where
    T::Err: std::fmt::Display,
{
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| parse(field, index, text))
        .collect()
}

fn parse<T: std::str::FromStr>(field: &str, index: usize, text: &str) -> PyResult<T>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error| PyValueError::new_err(format!("{field}[{index}]: {text:?}: {error}")))
}

pub(crate) fn parse_mac(field: &str, text: &str) -> PyResult<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        PyValueError::new_err(format!(
            "{field}: {text:?} isn't a hardware address such as 02:00:00:00:00:01"
        ))
    })
}
