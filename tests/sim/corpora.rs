//! What fuzzing starts from and what it once found, run as ordinary tests: `fuzz/corpus/<target>/`.

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

type Body = fn(&[u8]);

/// Every fuzz target.
const TARGETS: [(&str, Body); 13] = [
    ("wire_command", bodies::wire_command),
    ("wal_record", bodies::wal_record),
    ("wal_recovery", bodies::wal_recovery),
    ("gateway_body", bodies::gateway_body),
    ("credential", bodies::credential),
    ("config", bodies::config),
    ("duration", bodies::duration),
    ("multiaddr", bodies::multiaddr),
    ("manifest", bodies::manifest),
    ("stops", bodies::stops),
    ("sql", bodies::sql),
    ("select", bodies::select),
    ("storage_query", bodies::storage_query),
];

#[test]
fn corpora_of_the_fuzz_targets_are_read_without_a_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let n_folders = fs::read_dir(&corpus).unwrap().count();
    assert_eq!(n_folders, TARGETS.len(), "every target has a corpus, and no other has");
    for (name, body) in TARGETS {
        let files = fs::read_dir(corpus.join(name)).unwrap();
        let mut files: Vec<_> = files.map(|it| it.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            eprintln!("{}", file.display());
            body(&fs::read(&file).unwrap());
        }
    }
}
