//! The Rust half of `meshwright.dpdk`: DPDK's devices as ports, alone or for the forwarder of `meshwright`.

mod eal;
mod port;
mod shim;

use std::sync::{Mutex, MutexGuard, PoisonError};

use meshwright_ports::foreign::{self, Table};
use meshwright_ports::{Burst, DropReason, Flow, Pair, Piece, Port as _, Settings, Workers};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict};

use crate::port::DpdkPort;

create_exception!(_native, DpdkError, PyException, "DPDK refused a step.");

fn refused(text: String) -> PyErr {
    DpdkError::new_err(text)
}

#[pyfunction]
#[pyo3(signature = (*, hugepages, memory, pci, buffers, arguments))]
fn init(
    py: Python<'_>,
    hugepages: bool,
    memory: u32,
    pci: Vec<String>,
    buffers: u32,
    arguments: Vec<String>,
) -> PyResult<()> {
    let settings = eal::Settings {
        hugepages,
        memory,
        pci,
        buffers,
        arguments,
    };
    py.detach(|| eal::begin(settings)).map_err(refused)
}

/// An open device. It is used by one at a time: here, by a worker, or by whoever took its capsule.
#[pyclass(frozen)]
struct Port {
    number: u16,
    port: Mutex<Option<DpdkPort>>,
}

impl Port {
    fn held(&self) -> MutexGuard<'_, Option<DpdkPort>> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> PyResult<DpdkPort> {
        self.held()
            .take()
            .ok_or_else(|| PyValueError::new_err("the port was given away or closed already"))
    }
}

#[pymethods]
impl Port {
    #[new]
    fn new(py: Python<'_>, device: &str, descriptors: u16, mtu: u16) -> PyResult<Self> {
        let port = py
            .detach(|| DpdkPort::open(device, descriptors, mtu))
            .map_err(refused)?;
        Ok(Self {
            number: port.number(),
            port: Mutex::new(Some(port)),
        })
    }

    fn look<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let device = py.detach(|| port::look(self.number)).map_err(refused)?;
        let dict = PyDict::new(py);
        dict.set_item("mac", device.mac.map(|byte| format!("{byte:02x}")).join(":"))?;
        dict.set_item("link_up", device.link_up != 0)?;
        dict.set_item("rx_packets", device.received)?;
        dict.set_item("tx_packets", device.sent)?;
        dict.set_item("missed", device.missed)?;
        dict.set_item("rx_errors", device.errors_in)?;
        dict.set_item("tx_errors", device.errors_out)?;
        dict.set_item("no_buffer", device.no_buffer)?;
        Ok(dict)
    }

    /// Send frames; return how many went.
    fn send(&self, frames: Vec<Vec<u8>>) -> PyResult<u64> {
        let mut held = self.held();
        let port = held
            .as_mut()
            .ok_or_else(|| PyValueError::new_err("the port was given away or closed already"))?;
        let mut gone = 0;
        for frames in frames.chunks(meshwright_ports::BURST) {
            let mut burst = Burst::new();
            for frame in frames {
                burst.push(Piece {
                    data: frame.as_ptr(),
                    length: frame.len() as u32,
                    spare: 0,
                    more: 0,
                });
            }
            port.send(&mut burst);
            gone += burst.sent.packets;
        }
        Ok(gone)
    }

    /// The frames that have come, 64 at most.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let mut held = self.held();
        let port = held
            .as_mut()
            .ok_or_else(|| PyValueError::new_err("the port was given away or closed already"))?;
        let mut burst = Burst::new();
        port.receive(&mut burst);
        let frames = burst.pieces().iter().map(|piece| {
            // SAFETY: the buffer is this port's until it is released below.
            PyBytes::new(py, unsafe {
                std::slice::from_raw_parts(piece.data, piece.length as usize)
            })
        });
        let frames = frames.collect();
        port.release(&mut burst);
        Ok(frames)
    }

    /// Give the port away, to whoever knows this kind of capsule.
    fn capsule<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let table = foreign::export(self.take()?);
        PyCapsule::new_with_value_and_destructor(py, Offer(table), foreign::CAPSULE, |offer, _| {
            if !offer.0.context.is_null() {
                // SAFETY: nobody took the port: this is its one end.
                unsafe { (offer.0.close)(offer.0.context) };
            }
        })
    }

    fn close(&self, py: Python<'_>) {
        let port = self.held().take();
        py.detach(|| drop(port));
    }
}

/// A table in a capsule; who takes it leaves a null context.
#[repr(transparent)]
struct Offer(Table);

// SAFETY: a table is of a port, which may move to another thread.
unsafe impl Send for Offer {}

/// A thread that carries packets between two ports.
#[pyclass(frozen)]
struct CrossConnect {
    workers: Mutex<Option<Workers>>,
    counters: std::sync::Arc<[meshwright_ports::Counters; 2]>,
}

const ID: &str = "cross-connect";

#[pymethods]
impl CrossConnect {
    #[new]
    fn new(one: &Port, other: &Port, core: Option<usize>) -> PyResult<Self> {
        let settings = Settings {
            workers: 1,
            cores: core.into_iter().collect(),
            busy: true, // the devices have no other way
        };
        let workers = Workers::start(&settings).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let one = one.take()?;
        let pair = Pair::new(Box::new(one), Box::new(other.take()?));
        let counters = pair.counters();
        let added = workers.add(ID, pair);
        added.map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            workers: Mutex::new(Some(workers)),
            counters,
        })
    }

    /// What passed: for each port what came from it and what went to it.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyDict>, Bound<'py, PyDict>)>> {
        self.counters
            .iter()
            .map(|port| Ok((flow(py, port.received.read())?, flow(py, port.sent.read())?)))
            .collect()
    }

    /// The CPU time of the thread so far, in seconds.
    fn cpu_seconds(&self) -> PyResult<f64> {
        let mut nanoseconds = 0_u64;
        for task in std::fs::read_dir("/proc/self/task")? {
            let path = task?.path();
            let of_worker = std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("worker-"));
            if of_worker && let Ok(schedstat) = std::fs::read_to_string(path.join("schedstat")) {
                let used = schedstat.split(' ').next().and_then(|used| used.parse::<u64>().ok());
                nanoseconds += used.unwrap_or(0);
            }
        }
        Ok(nanoseconds as f64 / 1e9)
    }

    /// End the thread and close both ports.
    fn close(&self, py: Python<'_>) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(workers));
    }
}

fn flow<'py>(py: Python<'py>, flow: Flow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("packets", flow.packets)?;
    dict.set_item("bytes", flow.bytes)?;
    for reason in DropReason::ALL {
        dict.set_item(format!("dropped_{}", reason.name()), flow.drops[reason as usize])?;
    }
    Ok(dict)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DpdkError", module.py().get_type::<DpdkError>())?;
    module.add_function(wrap_pyfunction!(init, module)?)?;
    module.add_class::<Port>()?;
    module.add_class::<CrossConnect>()?;
    Ok(())
}
