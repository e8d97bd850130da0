//! Which certificate a server shows: its own, or a further one for the DNS name that the client asks for (SNI, RFC 6066).
//!
//! Members of the mesh ask for no name and get the X509-SVID. Whoever knows a server by a DNS name only, such as a webhook's
//! caller, gets the certificate of that name, if there is one; else the X509-SVID too, for the client to judge.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::certificate::Names;

/// A server's certificates.
#[derive(Debug)]
pub(crate) struct Certificates {
    own: Arc<CertifiedKey>,
    /// By name in lower case, or "*.domain" for all names of one more label (RFC 6125, section 6.4.3).
    named: HashMap<Arc<str>, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Show `own`, and each of `named` for the DNS names of its leaf; `Err`: one has none, or it isn't a server's leaf.
    /// Of two for one name the first is shown.
    pub(crate) fn new(own: Arc<CertifiedKey>, named: Vec<Arc<CertifiedKey>>) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        for key in named {
            let leaf = key.cert.first().ok_or("it has no certificate")?;
            let names = Names::of_leaf(leaf)?;
            if names.dns().is_empty() {
                return Err("it has no DNS name: no client can ask for it".to_owned());
            }
            for name in names.dns() {
                by_name.entry(name.clone()).or_insert_with(|| key.clone());
            }
        }
        Ok(Self { own, named: by_name })
    }

    /// The one for `name`.
    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.filter(|_| !self.named.is_empty()) else {
            return &self.own;
        };
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        let found = self.named.get(name.as_str());
        found
            .or_else(|| wildcard().and_then(|name| self.named.get(name.as_str())))
            .unwrap_or(&self.own)
    }

    pub(crate) fn own(&self) -> &Arc<CertifiedKey> {
        &self.own
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::PrivateKeyDer;

    fn certified(names: &[&str]) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.self_signed(&key).expect("certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
        let chain = vec![certificate.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, key, &default_provider()).expect("pair"))
    }

    #[test]
    fn the_nearest_name_is_shown() {
        let own = certified(&[]);
        let (exact, wild, second) = (
            certified(&["a.example.com", "B.example.com"]),
            certified(&["*.example.com"]),
            certified(&["a.example.com"]),
        );
        let named = vec![exact.clone(), wild.clone(), second];
        let certificates = Certificates::new(own.clone(), named).expect("good");
        for (asked, shown) in [
            (Some("a.example.com"), &exact),
            (Some("A.Example.com"), &exact),
            (Some("b.example.com"), &exact),
            (Some("c.example.com"), &wild),
            (Some("d.c.example.com"), &own),
            (Some("example.com"), &own),
            (Some("com"), &own),
            (Some(""), &own),
            (None, &own),
        ] {
            assert!(Arc::ptr_eq(certificates.find(asked), shown), "{asked:?}");
        }
    }

    #[test]
    fn one_that_nobody_can_ask_for_is_refused() {
        let refused = Certificates::new(certified(&[]), vec![certified(&[])]).expect_err("no name");
        assert!(refused.contains("no DNS name"), "{refused}");
    }
}
