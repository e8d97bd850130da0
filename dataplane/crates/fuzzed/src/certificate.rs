//! Certificates: a peer's leaf (DER), and the PEM files of an identity.

use meshwright_serve::{Identity, inside};

use crate::input::Input;

/// Any bytes as a leaf, and as the PEM texts of an identity that otherwise is good.
pub fn certificate(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (chain, key, bundle) = crate::rig::server_pem();
    match input.byte() % 4 {
        0 => {
            if let Ok(id) = inside::spiffe_id_of_leaf(input.rest()) {
                assert!(id.as_str().starts_with("spiffe://"));
            }
        }
        1 => {
            let _ = Identity::from_pem(input.rest(), key, bundle);
        }
        2 => {
            let _ = Identity::from_pem(chain, input.rest(), bundle);
        }
        _ => {
            let _ = Identity::from_pem(chain, key, input.rest());
        }
    }
}
