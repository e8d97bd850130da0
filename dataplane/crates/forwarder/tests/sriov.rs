//! Discovery and the pool on a device tree made for the test; what the kernel itself does is tested in the guest
//! (tests/sriov of the project).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use meshwright_forwarder::Error;
use meshwright_forwarder::sriov::{Pool, Served, Sysfs, Wire};

const WIRE: Wire = Wire {
    mac: [2, 0, 0, 0, 0, 1],
    vlan: 0,
};
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A folder that looks like /sys and is removed with the value.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("sysfs-{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("bus/pci/devices")).unwrap();
        Self(root)
    }

    fn device(&self, address: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.0.join("bus/pci/devices").join(address);
        for (name, content) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    /// A card at `address` of which `made` of 7 functions are made, each in an IOMMU group of its own.
    fn card(&self, address: &str, interface: &str, made: u16) {
        let folder = self.device(
            address,
            &[
                ("vendor", "0x8086\n"),
                ("device", "0x10c9\n"),
                ("class", "0x020000\n"),
                ("sriov_totalvfs", "7\n"),
                ("sriov_numvfs", "0\n"),
                ("sriov_drivers_autoprobe", "1\n"),
                (&format!("net/{interface}/ifindex"), "2\n"),
            ],
        );
        link(&folder.join("driver"), "../../drivers/igb");
        for index in 0..made {
            let function = function(address, index);
            let path = self.device(&function, &[("class", "0x020000\n")]);
            link(
                &path.join("iommu_group"),
                &format!("../../../../kernel/iommu_groups/{}", 8 + index),
            );
            link(&folder.join(format!("virtfn{index}")), &format!("../{function}"));
        }
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::at(&self.0)
    }

    fn bound(&self, address: &str, driver: &str) {
        let path = self.0.join("bus/pci/devices").join(address).join("driver");
        link(&path, &format!("../../drivers/{driver}"));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn link(path: &Path, target: &str) {
    symlink(target, path).unwrap();
}

fn function(card: &str, index: u16) -> String {
    format!("{}:10.{index}", &card[..7])
}

fn served(device: &str, services: &[&str]) -> Served {
    Served {
        device: device.into(),
        functions: 2,
        services: services.iter().map(|&service| service.to_owned()).collect(),
        driver: None,
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn discovery_finds_cards_and_their_functions() {
    let tree = Tree::new();
    tree.card("0000:02:00.0", "eth1", 0);
    tree.card("0000:01:00.0", "eth0", 2);
    tree.device("0000:00:1f.0", &[("vendor", "0x8086"), ("device", "0x2918")]);
    tree.bound("0000:01:10.1", "igbvf");
    let found = tree.sysfs().physical_functions().unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|it| (it.address.as_str(), it.model.as_str(), it.functions.len()))
        .collect();
    assert_eq!(
        seen,
        [("0000:01:00.0", "8086:10c9", 2), ("0000:02:00.0", "8086:10c9", 0)]
    );
    assert_eq!(
        (found[0].driver.as_deref(), found[0].interface.as_deref()),
        (Some("igb"), Some("eth0"))
    );
    assert_eq!(found[0].total, 7);
    let functions = &found[0].functions;
    assert_eq!(
        (functions[0].address.as_str(), functions[0].iommu_group),
        ("0000:01:10.0", Some(8))
    );
    assert_eq!(
        (functions[0].driver.clone(), functions[1].driver.as_deref()),
        (None, Some("igbvf"))
    );
}

#[test]
fn a_card_is_named_by_address_or_interface() {
    let tree = Tree::new();
    tree.card("0000:01:00.0", "eth0", 1);
    let sysfs = tree.sysfs();
    assert_eq!(
        sysfs.physical_function("eth0").unwrap(),
        sysfs.physical_function("0000:01:00.0").unwrap()
    );
    let told = refused(sysfs.physical_function("eth9"));
    assert!(
        told.contains("\"eth9\"") && told.contains("this machine has 0000:01:00.0"),
        "{told}"
    );
    let told = refused(Tree::new().sysfs().physical_function("eth0"));
    assert!(told.contains("none (is SR-IOV switched on in the firmware?)"), "{told}");
}

#[test]
fn making_functions_switches_their_own_choice_of_driver_off() {
    let tree = Tree::new();
    tree.card("0000:01:00.0", "eth0", 0);
    let told = refused(Pool::open(tree.sysfs(), &[served("eth0", &["a/b"])]));
    assert!(
        told.contains("make 2 virtual functions of 0000:01:00.0: none came into being"),
        "{told}"
    );
    let card = tree.0.join("bus/pci/devices/0000:01:00.0");
    assert_eq!(fs::read_to_string(card.join("sriov_numvfs")).unwrap(), "2");
    assert_eq!(fs::read_to_string(card.join("sriov_drivers_autoprobe")).unwrap(), "0");
    let told = refused(Pool::open(
        tree.sysfs(),
        &[Served {
            functions: 8,
            ..served("eth0", &["a/b"])
        }],
    ));
    assert!(told.contains("functions: 8: 0000:01:00.0 makes 7 at most"), "{told}");
}

#[test]
fn a_card_is_listed_once() {
    let tree = Tree::new();
    tree.card("0000:01:00.0", "eth0", 1);
    let told = refused(Pool::open(
        tree.sysfs(),
        &[served("eth0", &["a/b"]), served("0000:01:00.0", &["a/c"])],
    ));
    assert!(told.contains("which is listed already"), "{told}");
}

#[test]
fn what_a_connection_had_is_its_own_after_a_restart() {
    let tree = Tree::new();
    tree.card("0000:01:00.0", "eth0", 2);
    let pool = Pool::open(tree.sysfs(), &[served("eth0", &["a/b"])]).unwrap();
    assert!(pool.restore("c1", "0000:01:10.1"));
    assert!(pool.restore("c1", "0000:01:10.1"));
    assert!(!pool.restore("c2", "0000:01:10.1"), "it is another's");
    assert!(!pool.restore("c2", "0000:09:10.0"), "it isn't the pool's");
    let holders: Vec<_> = pool.list().unwrap().into_iter().map(|it| it.holder).collect();
    assert_eq!(holders, [None, Some("c1".to_owned())]);
    assert_eq!(pool.settle().unwrap(), Vec::<String>::new(), "neither has a driver");
    assert_eq!(pool.fallen(), Vec::<String>::new());
    tree.device("0000:01:10.1", &[("net/nsm-1/ifindex", "9\n")]);
    assert_eq!(pool.fallen(), ["c1"], "its interface came back by itself");
}

#[test]
fn what_nobody_serves_or_has_left_is_told() {
    let tree = Tree::new();
    tree.card("0000:01:00.0", "eth0", 1);
    let pool = Pool::open(tree.sysfs(), &[served("eth0", &["a/b"])]).unwrap();
    let told = refused(pool.give_device("c1", "a/10G", WIRE));
    assert!(told.contains("\"a/10G\" is served by no physical function"), "{told}");
    let told = refused(pool.give_device("c1", "a/b", Wire { vlan: 4095, ..WIRE }));
    assert!(told.contains("vlan: 4095 isn't within 0-4094"), "{told}");
    assert!(pool.restore("c1", "0000:01:10.0"));
    let told = refused(pool.give_device("c2", "a/b", WIRE));
    assert_eq!(
        told,
        "all 1 functions that serve a/b are in use (close a connection, or serve it by more functions)"
    );
}

#[test]
fn a_function_goes_to_user_space_alone() {
    let tree = Tree::new();
    tree.card("0000:01:00.0", "eth0", 2);
    let pool = Pool::open(tree.sysfs(), &[served("eth0", &["a/b"])]).unwrap();
    let told = refused(pool.give_device("c1", "a/b", WIRE));
    assert!(
        told.contains("it has no IOMMU group (switch the IOMMU on: intel_iommu=on)"),
        "{told}"
    );
    for address in ["0000:00:1c.0", "0000:01:10.0", "0000:01:10.1"] {
        let members = tree.0.join("kernel/iommu_groups/8/devices");
        fs::create_dir_all(&members).unwrap();
        fs::write(members.join(address), "").unwrap();
    }
    tree.device("0000:00:1c.0", &[("class", "0x060400\n")]);
    tree.bound("0000:00:1c.0", "pcieport");
    tree.bound("0000:01:10.1", "igbvf");
    let told = refused(pool.give_device("c1", "a/b", WIRE));
    assert!(
        told.contains("the IOMMU can't tell it from 0000:01:10.1, which igbvf drives"),
        "{told}"
    );
    assert!(
        pool.list().unwrap().iter().all(|it| it.holder.is_none()),
        "nothing stays claimed"
    );
}
