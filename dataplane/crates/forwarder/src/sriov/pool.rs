//! Who has which virtual function.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::function::{VFIO, driver_of};
use super::interface;
use super::sysfs::{Sysfs, VirtualFunction};
use crate::cross_connect::Side;
use crate::error::{Error, Result};
use crate::port::KernelPort;

/// VLANs are numbered in 12 bits, of which the last is reserved; 0 is none.
const VLAN_MAX: u16 = 4094;

/// A physical function, and what its virtual ones are for.
#[derive(Debug, Clone)]
pub struct Served {
    /// PCI address or interface.
    pub device: String,
    /// How many virtual functions to make, if none are made.
    pub functions: u16,
    /// What clients ask for, as `<service domain>/<capability>`.
    pub services: Vec<String>,
    /// The virtual functions' kernel driver; found by the physical function's when there is none.
    pub driver: Option<String>,
}

/// What the card imposes on a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// Hardware address.
    pub mac: [u8; 6],
    /// VLAN that its packets are on, which it doesn't see; 0 for none.
    pub vlan: u16,
}

/// A function that a connection has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// PCI address.
    pub address: String,
    /// Its IOMMU group: user space opens `/dev/vfio/<group>`.
    pub iommu_group: Option<u32>,
    /// Its interface in the client's namespace; none when user space drives it.
    pub side: Option<Side>,
}

/// A function as the pool sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its physical function's PCI address.
    pub physical: String,
    /// What the kernel says of it now.
    pub function: VirtualFunction,
    /// What it serves.
    pub services: Vec<String>,
    /// The connection that has it.
    pub holder: Option<String>,
}

#[derive(Debug, Clone)]
struct Slot {
    physical: String,
    driver: String,
    services: Vec<String>,
    address: String,
    index: u16,
    holder: Option<String>,
}

/// The virtual functions of the physical functions that the forwarder was given. All of them are its own.
#[derive(Debug)]
pub struct Pool {
    sysfs: Sysfs,
    slots: Mutex<Vec<Slot>>,
}

impl Pool {
    /// Find the physical functions and make their virtual ones. Functions that are there already stay as they are until
    /// [`Pool::settle`].
    pub fn open(sysfs: Sysfs, served: &[Served]) -> Result<Self> {
        let mut slots: Vec<Slot> = Vec::new();
        for wanted in served {
            let physical = sysfs.physical_function(&wanted.device)?;
            if slots.iter().any(|slot| slot.physical == physical.address) {
                let reason = format!("{:?} is {}, which is listed already", wanted.device, physical.address);
                return Err(Error::invalid("device", reason));
            }
            let driver = match (&wanted.driver, &physical.driver) {
                (Some(driver), _) => driver.clone(),
                (None, Some(driver)) => driver_of(driver).to_owned(),
                (None, None) => {
                    let step = format!("use {}", physical.address);
                    return Err(Error::kernel(step, "no driver has it"));
                }
            };
            for function in sysfs.make(&physical, wanted.functions)?.functions {
                slots.push(Slot {
                    physical: physical.address.clone(),
                    driver: driver.clone(),
                    services: wanted.services.clone(),
                    address: function.address,
                    index: function.index,
                    holder: None,
                });
            }
        }
        Ok(Self {
            sysfs,
            slots: Mutex::new(slots),
        })
    }

    /// Note that a connection of an earlier process has this function; return whether it is one of the pool's.
    pub fn restore(&self, id: &str, address: &str) -> bool {
        let mut slots = self.slots();
        let free = slots
            .iter_mut()
            .find(|slot| slot.address == address && slot.holder.as_deref().is_none_or(|holder| holder == id));
        if let Some(slot) = free {
            slot.holder = Some(id.to_owned());
            return true;
        }
        false
    }

    /// Take back what no connection has: an earlier process ended between giving a function and noting it. Return the
    /// addresses of those that had a driver.
    pub fn settle(&self) -> Result<Vec<String>> {
        let unclaimed: Vec<_> = self
            .slots()
            .iter()
            .filter(|slot| slot.holder.is_none() && self.sysfs.driver(&slot.address).is_some())
            .map(|slot| slot.address.clone())
            .collect();
        for address in &unclaimed {
            self.sysfs.unbind(address)?;
        }
        Ok(unclaimed)
    }

    /// Give a connection a function as an interface. The same id again brings its interface to what is described now;
    /// what an earlier process gave is adopted. When a step fails, a function that was given just now is free again.
    pub fn give_interface(&self, id: &str, service: &str, wire: Wire, port: &KernelPort) -> Result<Given> {
        port.check("client")?;
        self.give(id, service, wire, |slot| {
            let bound = self.sysfs.driver(&slot.address).as_deref() == Some(slot.driver.as_str());
            if !(bound && interface::is_there(id, port)?) {
                // Unbound first: only then does the driver take the new hardware address.
                self.sysfs.unbind(&slot.address)?;
                self.impose(slot, Some(wire.mac), wire.vlan)?;
                self.sysfs.bind(&slot.address, &slot.driver)?;
                interface::move_in(self.sysfs.await_interface(&slot.address)?, id, port)?;
            } else {
                self.impose(slot, None, wire.vlan)?;
            }
            interface::configure(id, port).map(Some)
        })
    }

    /// Give a connection a function that user space drives, by vfio-pci. The same id again changes its VLAN in place.
    pub fn give_device(&self, id: &str, service: &str, wire: Wire) -> Result<Given> {
        self.give(id, service, wire, |slot| {
            if self.sysfs.driver(&slot.address).as_deref() != Some(VFIO) {
                self.sysfs.check_group(&slot.address)?;
                self.sysfs.unbind(&slot.address)?;
                self.impose(slot, Some(wire.mac), wire.vlan)?;
                self.sysfs.bind(&slot.address, VFIO)?;
            } else {
                self.impose(slot, None, wire.vlan)?;
            }
            Ok(None)
        })
    }

    /// Take a connection's function back; a connection that has none is success.
    pub fn give_back(&self, id: &str) -> Result<()> {
        let Some(slot) = self.held(id) else { return Ok(()) };
        self.sysfs.unbind(&slot.address)?;
        if let Some(slot) = self.slots().iter_mut().find(|slot| slot.holder.as_deref() == Some(id)) {
            slot.holder = None;
        }
        Ok(())
    }

    /// The connections whose interfaces came back by themselves: their namespaces are gone.
    pub fn fallen(&self) -> Vec<String> {
        let held: Vec<_> = self
            .slots()
            .iter()
            .filter_map(|slot| Some((slot.holder.clone()?, slot.address.clone())))
            .collect();
        let came_back = |(holder, address): (String, String)| self.sysfs.interface(&address).map(|_| holder);
        held.into_iter().filter_map(came_back).collect()
    }

    /// All functions and who has them.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let slots = self.slots().clone();
        for slot in slots {
            let physical = self.sysfs.physical_function(&slot.physical)?;
            let function = physical
                .functions
                .into_iter()
                .find(|function| function.address == slot.address);
            if let Some(function) = function {
                listed.push(Listed {
                    physical: slot.physical,
                    function,
                    services: slot.services,
                    holder: slot.holder,
                });
            }
        }
        Ok(listed)
    }

    fn give<F>(&self, id: &str, service: &str, wire: Wire, work: F) -> Result<Given>
    where
        F: FnOnce(&Slot) -> Result<Option<Side>>,
    {
        if wire.vlan > VLAN_MAX {
            let reason = format!("{} isn't within 0-{VLAN_MAX} (0: no VLAN)", wire.vlan);
            return Err(Error::invalid("vlan", reason));
        }
        if wire.mac[0] & 1 == 1 || wire.mac == [0; 6] {
            return Err(Error::invalid("mac", "a station's address isn't zero or multicast"));
        }
        let (slot, fresh) = self.claim(id, service)?;
        let side = work(&slot).inspect_err(|_| {
            if fresh {
                // The first error is the one to tell; the function stays this connection's when it can't be taken back.
                let _ = self.give_back(id);
            }
        })?;
        let physical = self.sysfs.physical_function(&slot.physical)?;
        let group = physical
            .functions
            .iter()
            .find(|function| function.address == slot.address);
        Ok(Given {
            iommu_group: group.and_then(|function| function.iommu_group),
            address: slot.address,
            side,
        })
    }

    /// The connection's function, or a free one of the physical function that has the most of them left; and whether it
    /// is the connection's only since now.
    fn claim(&self, id: &str, service: &str) -> Result<(Slot, bool)> {
        let mut slots = self.slots();
        let serving = |slot: &Slot| slot.services.iter().any(|it| it == service);
        if let Some(slot) = slots.iter().find(|slot| slot.holder.as_deref() == Some(id)) {
            if serving(slot) {
                return Ok((slot.clone(), false));
            }
            let reason = format!("{service:?}: this connection has {} already", slot.address);
            return Err(Error::invalid("service", reason));
        }
        let all = slots.iter().filter(|slot| serving(slot)).count();
        if all == 0 {
            let reason = format!("{service:?} is served by no physical function of this node");
            return Err(Error::invalid("service", reason));
        }
        let left = |physical: &str| {
            let free = |slot: &&Slot| slot.physical == physical && slot.holder.is_none() && serving(slot);
            slots.iter().filter(free).count()
        };
        let best = (0..slots.len())
            .filter(|&number| slots[number].holder.is_none() && serving(&slots[number]))
            .min_by_key(|&number| (usize::MAX - left(&slots[number].physical), number));
        let Some(best) = best else {
            return Err(Error::InUse(format!("all {all} functions that serve {service}")));
        };
        slots[best].holder = Some(id.to_owned());
        Ok((slots[best].clone(), true))
    }

    fn held(&self, id: &str) -> Option<Slot> {
        let slots = self.slots();
        slots.iter().find(|slot| slot.holder.as_deref() == Some(id)).cloned()
    }

    fn impose(&self, slot: &Slot, mac: Option<[u8; 6]>, vlan: u16) -> Result<()> {
        let physical = self.sysfs.interface_index(&slot.physical).ok_or_else(|| {
            Error::kernel(
                format!("find the interface of {}", slot.physical),
                "it isn't in the forwarder's network namespace (the forwarder must run in the machine's)",
            )
        })?;
        interface::impose(physical, slot.index, mac, vlan)
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        // The table is whole between statements, so a panic elsewhere doesn't spoil it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
