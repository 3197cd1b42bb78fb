//! API keys: which namespace a key opens.
//!
//! Keys lie sorted by a hash that is keyed with a secret of this process, and the few with equal hashes
//! are compared without stopping at the first difference: how long a lookup takes says nothing about
//! how close a guess was.

use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hasher;
use std::hint::black_box;

use crate::types::Namespace;

/// Which of the configured keys, counted from one in their order; zero is no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// All keys of one core. The namespaces are its own, so that counting references to them stays on it.
pub struct Keys {
    seed: [u8; 16],
    /// Sorted by hash.
    entries: Vec<Entry>,
}

struct Entry {
    hash: u64,
    id: KeyId,
    key: Box<[u8]>,
    namespace: Namespace,
}

/// One text would open two namespaces. The keys are counted from one, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A key without any characters.
    #[error("API key {0} is empty")]
    Empty(usize),
    /// The same key, or the same `key:namespace`, for different namespaces.
    #[error("API key {0} is given for two namespaces")]
    Ambiguous(usize),
}

impl Keys {
    /// Know these keys, each by itself and as `key:namespace`. `seed` is secret and random.
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a Namespace)>,
        seed: [u8; 16],
    ) -> Result<Self, KeysError> {
        let mut keys = Self { seed, entries: Vec::new() };
        for (number, (key, namespace)) in (1..).zip(pairs) {
            if key.is_empty() {
                return Err(KeysError::Empty(number));
            }
            let own = Namespace::new(namespace.as_str()).expect("it is a namespace's name");
            let id = KeyId(u32::try_from(number).expect("keys are counted in 32 bits"));
            for text in [key.to_owned(), format!("{key}:{namespace}")] {
                match keys.find(text.as_bytes()) {
                    Some((_, known)) if *known == own => {}
                    Some(_) => return Err(KeysError::Ambiguous(number)),
                    None => keys.add(text, id, own.clone()),
                }
            }
        }
        Ok(keys)
    }

    fn add(&mut self, text: String, id: KeyId, namespace: Namespace) {
        let hash = self.hash(text.as_bytes());
        let at = self.entries.partition_point(|it| it.hash < hash);
        let key = text.into_bytes().into_boxed_slice();
        self.entries.insert(at, Entry { hash, id, key, namespace });
    }

    /// Which key `presented` is, if it is one, and the namespace that it opens.
    pub fn find(&self, presented: &[u8]) -> Option<(KeyId, &Namespace)> {
        let hash = self.hash(presented);
        let first = self.entries.partition_point(|it| it.hash < hash);
        let candidates = self.entries[first..].iter().take_while(|it| it.hash == hash);
        let mut found = None;
        for entry in candidates {
            if are_equal(&entry.key, presented) {
                found = Some((entry.id, &entry.namespace));
            }
        }
        found
    }

    /// `SipHash` with the seed in front.
    fn hash(&self, text: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.seed);
        hasher.write(text);
        hasher.finish()
    }
}

/// Compare to the end, whatever differs.
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |differs, (a, b)| black_box(differs | (a ^ b)));
    a.len() == b.len() && differs == 0
}

impl fmt::Debug for Keys {
    /// How many: the keys themselves belong in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("n", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> Result<Keys, KeysError> {
        let pairs: Vec<_> =
            pairs.iter().map(|(key, it)| (*key, Namespace::new(it).unwrap())).collect();
        Keys::new(pairs.iter().map(|(key, it)| (*key, it)), [1; 16])
    }

    #[test]
    fn a_key_opens_its_namespace_and_nothing_else_does() {
        let many: Vec<_> = (0..500).map(|it| (format!("ak_{it}"), format!("ns{it}"))).collect();
        let pairs: Vec<_> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let keys = keys(&pairs).unwrap();
        for (key, namespace) in pairs {
            let full = format!("{key}:{namespace}");
            assert_eq!(keys.find(key.as_bytes()).unwrap().1.as_str(), namespace);
            assert_eq!(keys.find(full.as_bytes()), keys.find(key.as_bytes()));
            for wrong in [&full[..full.len() - 1], &format!("{full}x"), &key[..2], ""] {
                let is_other = (0..500).any(|it| wrong == format!("ak_{it}"))
                    || (0..500).any(|it| wrong == format!("ak_{it}:ns{it}"));
                assert_eq!(keys.find(wrong.as_bytes()).is_some(), is_other, "{wrong}");
            }
        }
    }

    #[test]
    fn no_text_opens_two_namespaces() {
        for (name, pairs, want) in [
            ("a key with a namespace in it", &[("ak_x:a", "b")][..], None),
            ("the same twice", &[("k", "a"), ("k", "a")], None),
            ("one key, two namespaces", &[("k", "a"), ("k", "b")], Some(KeysError::Ambiguous(2))),
            ("by way of its suffix", &[("k:a", "b"), ("k", "a")], Some(KeysError::Ambiguous(2))),
            ("empty", &[("", "a")], Some(KeysError::Empty(1))),
        ] {
            assert_eq!(keys(pairs).err(), want, "{name}");
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = keys(&[("secret", "a")]).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys { n: 2, .. }");
    }
}
