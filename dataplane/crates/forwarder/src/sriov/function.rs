//! Making virtual functions, and binding one to a driver and to none.

use std::thread;
use std::time::{Duration, Instant};

use super::sysfs::{self, PhysicalFunction, Sysfs};
use crate::error::{Error, Result};

/// What user space drives hardware through.
pub(super) const VFIO: &str = "vfio-pci";
/// Some drivers make their interface after they were bound.
const INTERFACE_DEADLINE: Duration = Duration::from_secs(5);

impl Sysfs {
    /// Make `count` virtual functions unless some are made already, none of them with a driver of its own choice.
    ///
    /// The number can't be changed while there are any, so those that are there are taken as they are.
    pub(super) fn make(&self, physical: &PhysicalFunction, count: u16) -> Result<PhysicalFunction> {
        let folder = self.device(&physical.address);
        sysfs::write(&folder.join("sriov_drivers_autoprobe"), "0")?;
        if physical.functions.is_empty() {
            if count > physical.total {
                return Err(Error::invalid(
                    "functions",
                    format!("{count}: {} makes {} at most", physical.address, physical.total),
                ));
            }
            sysfs::write(&folder.join("sriov_numvfs"), &count.to_string())?;
        }
        let made = self.physical_function(&physical.address)?;
        if made.functions.is_empty() {
            return Err(Error::kernel(
                format!("make {count} virtual functions of {}", physical.address),
                "none came into being (is SR-IOV switched on in the firmware?)",
            ));
        }
        Ok(made)
    }

    /// Bind a function to this driver, whatever it is bound to now.
    pub(super) fn bind(&self, function: &str, driver: &str) -> Result<()> {
        if self.driver(function).as_deref() == Some(driver) {
            return Ok(());
        }
        let step = || format!("bind {function} to {driver}");
        if !self.has_driver(driver) {
            return Err(Error::kernel(step(), format!("no such driver (modprobe {driver})")));
        }
        self.unbind(function)?;
        sysfs::write(&self.device(function).join("driver_override"), driver)?;
        let probed = sysfs::write(&self.probe(), function);
        match self.driver(function) {
            Some(bound) if bound == driver => probed,
            _ => Err(Error::kernel(
                step(),
                "the driver didn't take it (the kernel's log says why)",
            )),
        }
    }

    /// Bind a function to no driver. Its interface, wherever it was, is gone then.
    pub(super) fn unbind(&self, function: &str) -> Result<()> {
        let folder = self.device(function);
        if self.driver(function).is_some() {
            let written = sysfs::write(&folder.join("driver/unbind"), function);
            if self.driver(function).is_some() {
                written?;
                return Err(Error::kernel(format!("unbind {function}"), "its driver keeps it"));
            }
        }
        let preference = folder.join("driver_override");
        if preference.exists() {
            sysfs::write(&preference, "\n")?;
        }
        Ok(())
    }

    /// Wait for the interface that a driver makes in this network namespace; return its number.
    pub(super) fn await_interface(&self, function: &str) -> Result<u32> {
        let begun = Instant::now();
        loop {
            if let Some(index) = self.interface_index(function) {
                return Ok(index);
            }
            if begun.elapsed() > INTERFACE_DEADLINE {
                return Err(Error::kernel(
                    format!("find the interface of {function}"),
                    "it isn't in the forwarder's network namespace (the forwarder must run in the machine's)",
                ));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Refuse a function that can't be given to user space without something else of the machine.
    pub(super) fn check_group(&self, function: &str) -> Result<()> {
        let step = || format!("give {function} to user space");
        let group = self
            .group(function)
            .map_err(|_| Error::kernel(step(), "it has no IOMMU group (switch the IOMMU on: intel_iommu=on)"))?;
        for other in group {
            let driver = self.driver(&other);
            let harmless = other == function || self.is_bridge(&other) || driver.as_deref().is_none_or(|it| it == VFIO);
            if !harmless {
                return Err(Error::kernel(
                    step(),
                    format!(
                        "the IOMMU can't tell it from {other}, which {} drives",
                        driver.unwrap_or_default()
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The driver of a physical function's virtual ones, where it has a name of its own.
pub(super) fn driver_of(physical: &str) -> &str {
    match physical {
        "igb" => "igbvf",
        "ixgbe" => "ixgbevf",
        "i40e" | "ice" => "iavf",
        other => other, // mlx5_core, bnxt_en, …: one driver for both kinds
    }
}
