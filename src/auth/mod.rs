//! Who is asking, and for which namespace may they ask: keys, and the rules around them.
//!
//! A request *presents* credentials in its headers and its query; [`Policy::identify`] says who that
//! makes it, [`Policy::authorize`] what it may touch. Nothing is looked up outside this core: a check
//! is a hash and a search in a sorted list.
//! Deliberately absent: where the keys come from, and what a refusal looks like on the wire.

pub mod credential;
pub mod key;
pub mod rate;

use crate::auth::credential::Presented;
use crate::auth::key::KeyId;
use crate::auth::key::Keys;
use crate::types::Namespace;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The key that they know; zero if nothing was required, and nothing shown.
    pub key: KeyId,
    /// The namespace they act in; none if they have not been given one.
    pub namespace: Option<Namespace>,
}

/// Why a request may not do what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No credential, where one is required (401).
    #[error("missing API key")]
    Missing,
    /// Credentials, none of them good (401).
    #[error("invalid API key")]
    Invalid,
    /// A good credential that belongs to no namespace, for something that needs one (403).
    #[error("namespace not resolved")]
    NoNamespace,
}

/// The rules of one gateway, on one core.
#[derive(Debug)]
pub struct Policy {
    /// The keys it knows.
    pub keys: Keys,
    /// Whether a request without any credential is refused.
    pub require_auth: bool,
    /// Where a request without a credential acts, if it is not refused.
    pub client_namespace: Option<Namespace>,
}

impl Policy {
    /// Who sent the request. A wrong credential is refused even where none is required.
    pub fn identify(&self, presented: &Presented<'_>) -> Result<Identity, Denied> {
        let mut is_empty = true;
        for credential in presented.credentials().iter().flatten() {
            if let Some((key, namespace)) = self.keys.find(credential) {
                return Ok(Identity { key, namespace: Some(namespace.clone()) });
            }
            is_empty = false;
        }
        match (is_empty, self.require_auth) {
            (false, _) => Err(Denied::Invalid),
            (true, true) => Err(Denied::Missing),
            (true, false) => {
                let namespace = self.client_namespace.clone();
                Ok(Identity { key: KeyId::default(), namespace })
            }
        }
    }

    /// The namespace a request may touch, for one that needs a namespace. Whoever acts in a namespace
    /// owns it: a key is issued for it.
    pub fn authorize(&self, identity: Identity) -> Result<Namespace, Denied> {
        identity.namespace.ok_or(Denied::NoNamespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(require_auth: bool) -> Policy {
        let namespace = |it| Namespace::new(it).unwrap();
        let pairs = [("ak_1", namespace("one")), ("ak_2", namespace("two"))];
        Policy {
            keys: Keys::new(pairs.iter().map(|(key, it)| (*key, it)), [7; 16]).unwrap(),
            require_auth,
            client_namespace: Some(namespace("default")),
        }
    }

    #[test]
    fn a_request_acts_in_the_namespace_of_its_key() {
        for (name, require_auth, authorization, api_key, query, want) in [
            ("bearer", true, "Bearer ak_1", "", "", "one"),
            ("key and namespace", true, "Bearer ak_1:one", "", "", "one"),
            ("header", true, "", "ak_2", "", "two"),
            ("query", true, "", "", "topic=x&api_key=ak_2", "two"),
            ("the second of two is good", true, "Bearer a.b.c", "ak_2", "", "two"),
            ("the first of two is good", true, "ApiKey ak_1", "nonsense", "", "one"),
            (
                "a bad header is not saved by the query",
                true,
                "",
                "x",
                "token=ak_1",
                "invalid API key",
            ),
            ("another scheme is skipped", true, "Basic x", "ak_2", "", "two"),
            ("nothing", true, "", "", "", "missing API key"),
            ("only another scheme", true, "Basic x", "", "", "missing API key"),
            ("wrong", true, "", "ak_3", "", "invalid API key"),
            ("wrong namespace", true, "", "ak_1:two", "", "invalid API key"),
            ("another case", true, "", "AK_1", "", "invalid API key"),
            ("nothing, and nothing required", false, "", "", "", "default"),
            ("wrong, though nothing required", false, "", "ak_3", "", "invalid API key"),
            ("right, though nothing required", false, "", "ak_1", "", "one"),
        ] {
            let policy = policy(require_auth);
            let header = |it: &'static str| (!it.is_empty()).then_some(it.as_bytes());
            let presented = Presented {
                authorization: header(authorization),
                api_key: header(api_key),
                query: Some(query),
            };
            let got = policy.identify(&presented).and_then(|it| policy.authorize(it));
            let got = got.map_or_else(|it| it.to_string(), |it| it.to_string());
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn without_a_namespace_there_is_nothing_to_touch() {
        let policy = Policy { client_namespace: None, ..policy(false) };
        let identity = policy.identify(&Presented::default()).unwrap();
        assert_eq!(policy.authorize(identity), Err(Denied::NoNamespace));
    }
}
