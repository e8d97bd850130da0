//! The packet forwarder for Python. The GIL is released while the kernel works.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use meshwright_forwarder::{
    Address, Connected, DropReason, Error, Flows, Memif, Mode, Namespace, Neighbor, Route, Settings, Side, UserPort,
    foreign,
};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

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
    Namespace::new(duplicate("netns_fd", netns_fd)?).map_err(to_python)
}

fn duplicate(field: &str, descriptor: RawFd) -> PyResult<OwnedFd> {
    if descriptor < 0 {
        return Err(PyValueError::new_err(format!("{field}: a descriptor isn't negative")));
    }
    // SAFETY: the descriptor is only borrowed for the duplication; a number that isn't open gives EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?)
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

/// A memif interface: `serve` or dial a socket, which is a file's path, a file that is held open, or a name in a namespace.
#[pyclass(frozen)]
pub(crate) struct MemifPort {
    serve: bool,
    socket: MemifSocket,
}

enum MemifSocket {
    Path(PathBuf),
    File(OwnedFd),
    Abstract(Vec<u8>, Option<Namespace>),
}

#[pymethods]
impl MemifPort {
    #[new]
    #[pyo3(signature = (serve, *, path, socket_fd, name, netns_fd))]
    fn new(
        serve: bool,
        path: Option<PathBuf>,
        socket_fd: Option<RawFd>,
        name: Option<String>,
        netns_fd: Option<RawFd>,
    ) -> PyResult<Self> {
        let socket = match (path, socket_fd, name) {
            (Some(path), None, None) => MemifSocket::Path(path),
            (None, Some(descriptor), None) => MemifSocket::File(duplicate("socket_fd", descriptor)?),
            (None, None, Some(name)) => {
                MemifSocket::Abstract(name.into_bytes(), netns_fd.map(namespace_of).transpose()?)
            }
            _ => return Err(PyValueError::new_err("socket: one of path, socket_fd and name")),
        };
        Ok(Self { serve, socket })
    }
}

impl MemifPort {
    fn to_port(&self) -> PyResult<UserPort> {
        let address = match &self.socket {
            MemifSocket::Path(path) => Address::Path(path.clone()),
            MemifSocket::File(file) => Address::File(file.try_clone()?),
            MemifSocket::Abstract(name, namespace) => Address::Abstract {
                name: name.clone(),
                namespace: namespace
                    .as_ref()
                    .map(|namespace| namespace.as_fd().try_clone_to_owned())
                    .transpose()?,
            },
        };
        Ok(UserPort::Memif(if self.serve {
            Memif::Serve(address)
        } else {
            Memif::Dial(address)
        }))
    }
}

/// Take a port of another extension module out of its capsule; the capsule is empty then.
fn foreign_port(name: String, capsule: &Bound<'_, PyCapsule>) -> PyResult<UserPort> {
    let table = capsule
        .pointer_checked(Some(foreign::CAPSULE))?
        .cast::<foreign::Table>();
    // SAFETY: a capsule of this name holds a table; with the GIL held nobody else reads or writes it.
    let table = unsafe {
        let taken = table.read();
        (*table.as_ptr()).context = std::ptr::null_mut();
        taken
    };
    if table.context.is_null() {
        return Err(PyValueError::new_err("port: it was given away already"));
    }
    // SAFETY: the table is of a live port, which is ours now.
    let port = unsafe { foreign::Foreign::new(table) };
    let port = port.map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(UserPort::Other(name, Box::new(port)))
}

fn user_port(port: &Bound<'_, PyAny>) -> PyResult<UserPort> {
    if let Ok(kernel) = port.cast::<KernelPort>() {
        return Ok(UserPort::Kernel(kernel.get().to_port()));
    }
    if let Ok(memif) = port.cast::<MemifPort>() {
        return memif.get().to_port();
    }
    let (name, capsule): (String, Bound<'_, PyAny>) = port.extract()?;
    foreign_port(name, capsule.cast::<PyCapsule>()?)
}

/// A connection's id, its client's side and its endpoint's.
type FlowsOf<'py> = (String, Bound<'py, PyDict>, Bound<'py, PyDict>);

/// Makes, remembers and removes cross-connects.
#[pyclass(frozen)]
pub(crate) struct Forwarder(meshwright_forwarder::Forwarder);

#[pymethods]
impl Forwarder {
    #[new]
    #[pyo3(signature = (*, workers, cores, busy))]
    fn new(workers: usize, cores: Vec<usize>, busy: bool) -> Self {
        Self(meshwright_forwarder::Forwarder::new(Settings { workers, cores, busy }))
    }

    #[pyo3(signature = (id, client, endpoint, *, ip))]
    fn connect_user_space<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        client: &Bound<'py, PyAny>,
        endpoint: &Bound<'py, PyAny>,
        ip: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (client, endpoint) = (user_port(client)?, user_port(endpoint)?);
        let mode = if ip { Mode::Ip } else { Mode::Ethernet };
        let connected = py.detach(|| self.0.connect_user_space(id, mode, client, endpoint));
        to_dict(py, &connected.map_err(to_python)?)
    }

    fn flows<'py>(&self, py: Python<'py>) -> PyResult<Vec<FlowsOf<'py>>> {
        let all = self.0.flows();
        all.into_iter()
            .map(|(id, [client, endpoint])| Ok((id, flows_dict(py, &client)?, flows_dict(py, &endpoint)?)))
            .collect()
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

fn flows_dict<'py>(py: Python<'py>, flows: &Flows) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, flow) in [("received", &flows.received), ("sent", &flows.sent)] {
        let drops = PyDict::new(py);
        for reason in DropReason::ALL {
            drops.set_item(reason.name(), flow.drops[reason as usize])?;
        }
        dict.set_item(name, (flow.packets, flow.bytes, drops))?;
    }
    let memif = flows.memif.as_ref();
    dict.set_item(
        "memif",
        memif.map(|state| (state.up, state.links, &state.peer, &state.fault)),
    )?;
    Ok(dict)
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
