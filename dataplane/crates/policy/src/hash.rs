//! The hash map of this crate: keyed per process (callers choose attribute names), and quicker than the standard one.

/// A map with a seed of its own.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
