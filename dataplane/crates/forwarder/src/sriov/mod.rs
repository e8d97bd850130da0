//! Network cards that share themselves: physical functions, the virtual functions they make, and who has which.
//!
//! One decision to know: a virtual function that nobody has is bound to no driver. So it has no interface whose name or
//! address could be left over, its hardware address and VLAN are set before whichever driver it gets looks at them, and
//! unbinding takes it back from wherever it is, a namespace that nobody can enter any more included.
//!
//! ```text
//! Pool ── who has which function ── Sysfs      discovery, making functions, binding drivers
//!                                └─ interface  a function as an interface in a client's namespace
//! ```

mod function;
mod interface;
mod pool;
mod sysfs;

pub use pool::{Given, Listed, Pool, Served, Wire};
pub use sysfs::{PhysicalFunction, Sysfs, VirtualFunction};
