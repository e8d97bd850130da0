//! What the kernel's device tree says of functions. Every question is asked anew: drivers and namespaces change under us.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A network card, or one port of it, that can make virtual functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalFunction {
    /// PCI address, for example `0000:01:00.0`.
    pub address: String,
    /// Vendor and device, for example `8086:10c9`.
    pub model: String,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its interface, if that is in this process's network namespace.
    pub interface: Option<String>,
    /// How many virtual functions it can make.
    pub total: u16,
    /// Those that are made.
    pub functions: Vec<VirtualFunction>,
}

/// One virtual function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualFunction {
    /// PCI address.
    pub address: String,
    /// Its number on the physical function.
    pub index: u16,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// The group of devices that the IOMMU can't tell apart; none without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Its interface, if that is in this process's network namespace.
    pub interface: Option<String>,
}

/// The device tree: `/sys`, or for tests a folder that looks like it.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The tree below this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// All functions of this machine that can make virtual ones, sorted by address.
    pub fn physical_functions(&self) -> Result<Vec<PhysicalFunction>> {
        let folder = self.root.join("bus/pci/devices");
        let mut found = Vec::new();
        for address in names(&folder)? {
            if folder.join(&address).join("sriov_totalvfs").exists() {
                found.push(self.physical(&address)?);
            }
        }
        found.sort_by(|one, other| one.address.cmp(&other.address));
        Ok(found)
    }

    /// The physical function with this PCI address or interface.
    pub fn physical_function(&self, device: &str) -> Result<PhysicalFunction> {
        let all = self.physical_functions()?;
        let known: Vec<_> = all.iter().map(|function| function.address.clone()).collect();
        let is_it =
            |function: &PhysicalFunction| function.address == device || function.interface.as_deref() == Some(device);
        all.into_iter().find(is_it).ok_or_else(|| {
            let here = if known.is_empty() {
                "none (is SR-IOV switched on in the firmware?)".into()
            } else {
                known.join(", ")
            };
            Error::invalid(
                "device",
                format!("{device:?} is no physical function with SR-IOV; this machine has {here}"),
            )
        })
    }

    fn physical(&self, address: &str) -> Result<PhysicalFunction> {
        let folder = self.device(address);
        let total = number(&folder.join("sriov_totalvfs"))?;
        let mut functions = Vec::new();
        for index in 0..total {
            if let Ok(target) = fs::read_link(folder.join(format!("virtfn{index}"))) {
                functions.push(self.virtual_function(&last(&target), index));
            }
        }
        let id = |name: &str| text(&folder.join(name)).map(|text| text.trim_start_matches("0x").to_owned());
        Ok(PhysicalFunction {
            address: address.to_owned(),
            model: format!("{}:{}", id("vendor")?, id("device")?),
            driver: self.driver(address),
            interface: self.interface(address),
            total,
            functions,
        })
    }

    fn virtual_function(&self, address: &str, index: u16) -> VirtualFunction {
        let group = fs::read_link(self.device(address).join("iommu_group")).ok();
        VirtualFunction {
            address: address.to_owned(),
            index,
            driver: self.driver(address),
            iommu_group: group.and_then(|path| last(&path).parse().ok()),
            interface: self.interface(address),
        }
    }

    /// The driver that a device is bound to now.
    pub(super) fn driver(&self, address: &str) -> Option<String> {
        fs::read_link(self.device(address).join("driver"))
            .ok()
            .map(|path| last(&path))
    }

    /// The device's interface; what is in another network namespace isn't seen.
    pub(super) fn interface(&self, address: &str) -> Option<String> {
        names(&self.device(address).join("net")).ok()?.into_iter().min()
    }

    /// The number of the device's interface in this network namespace. It stays when the machine renames the interface.
    pub(super) fn interface_index(&self, address: &str) -> Option<u32> {
        let folder = self.device(address).join("net").join(self.interface(address)?);
        text(&folder.join("ifindex")).ok()?.parse().ok()
    }

    /// The devices that the IOMMU can't tell from this one, itself included.
    pub(super) fn group(&self, address: &str) -> Result<Vec<String>> {
        names(&self.device(address).join("iommu_group/devices"))
    }

    /// Whether a device connects buses: such a one may share a group with what is given away.
    pub(super) fn is_bridge(&self, address: &str) -> bool {
        text(&self.device(address).join("class")).is_ok_and(|class| class.starts_with("0x06"))
    }

    pub(super) fn has_driver(&self, driver: &str) -> bool {
        self.root.join("bus/pci/drivers").join(driver).exists()
    }

    pub(super) fn device(&self, address: &str) -> PathBuf {
        self.root.join("bus/pci/devices").join(address)
    }

    pub(super) fn probe(&self) -> PathBuf {
        self.root.join("bus/pci/drivers_probe")
    }
}

/// Write one of the kernel's files, in one piece.
pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(|error| Error::kernel(format!("write {content:?} to {}", path.display()), error))
}

fn text(path: &Path) -> Result<String> {
    let content = fs::read_to_string(path).map_err(|error| Error::kernel(format!("read {}", path.display()), error))?;
    Ok(content.trim().to_owned())
}

fn number(path: &Path) -> Result<u16> {
    text(path)?
        .parse()
        .map_err(|error| Error::kernel(format!("read {}", path.display()), error))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| Error::kernel(format!("look into {}", folder.display()), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
