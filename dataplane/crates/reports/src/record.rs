//! One record on its way through the handlers: what each of them may want to know beside its own instance.

use crate::trace::Trace;

/// A record under evaluation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// The same through all redeliveries.
    pub(crate) id: u128,
    /// It may have been handled before.
    pub(crate) redelivered: bool,
    /// When mixer took it.
    pub(crate) time_nanos: i64,
    pub(crate) reporter: &'a str,
    pub(crate) kind: i32,
    pub(crate) trace: Option<Trace>,
}
