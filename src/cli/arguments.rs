//! Command lines in Go's style, for a parser in GNU style.
//!
//! Scripts call the programs as `-x v`, `-x=v`, `--x v` or `--x=v`. All become `--x=v`, so that a value
//! may begin with a dash, and a switch takes only `=true` or `=false`. Flags end at the first word that
//! is none, or at `--`; what follows is ignored, as it always was, but not silently. A command that wants words
//! gets them, before, between and behind its flags.

use clap::Command;

/// A command line as clap takes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    /// Every flag as `--name` or `--name=value`, and the words that the command wants.
    pub flags: Vec<String>,
    /// What followed the flags.
    pub ignored: Vec<String>,
}

/// Rewrite `words`, which follow the name of `command`.
pub(super) fn normalize(command: &Command, words: Vec<String>) -> Arguments {
    let mut flags = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
        if flag.is_empty() && word != "--" && command.get_positionals().next().is_some() {
            flags.push(word);
            continue;
        }
        if flag.is_empty() {
            let first = (word != "--").then_some(word);
            return Arguments { flags, ignored: first.into_iter().chain(words).collect() };
        }
        let wants_value = !flag.contains('=') && takes_value(command, flag);
        let flag = if flag == "h" { "help" } else { flag };
        flags.push(match words.as_slice().first() {
            Some(_) if wants_value => {
                format!("--{flag}={}", words.next().expect("there is a first"))
            }
            _ => format!("--{flag}"),
        });
    }
    Arguments { flags, ignored: Vec::new() }
}

fn takes_value(command: &Command, flag: &str) -> bool {
    let mut known = command.get_arguments().filter(|it| it.get_long() == Some(flag));
    // A switch may have a value, but then after `=`.
    known.any(|it| it.get_action().takes_values() && !it.is_require_equals_set())
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use clap::ArgAction;

    use super::*;

    #[test]
    fn a_command_that_wants_words_gets_them() {
        let data = Arg::new("data").long("data").action(ArgAction::Set);
        let command = Command::new("x").args([Arg::new("WORD"), data]);
        for (line, flags, ignored) in [
            ("word -data v", "word --data=v", ""),
            ("-data v word", "--data=v word", ""),
            ("word -data v -- more", "word --data=v", "more"),
        ] {
            let words = line.split_whitespace().map(str::to_owned).collect();
            let got = normalize(&command, words);
            assert_eq!(
                (&*got.flags.join(" "), &*got.ignored.join(" ")),
                (flags, ignored),
                "{line}"
            );
        }
    }

    #[test]
    fn all_spellings_become_one() {
        let switch = Arg::new("on").long("on").num_args(0..=1).require_equals(true);
        let command = Command::new("x").args([
            Arg::new("data").long("data").action(ArgAction::Set),
            switch.default_missing_value("true"),
        ]);
        for (line, flags, ignored) in [
            ("", "", ""),
            ("-data v", "--data=v", ""),
            ("--data v", "--data=v", ""),
            ("-data=v", "--data=v", ""),
            ("--data=v", "--data=v", ""),
            ("-data=a=b", "--data=a=b", ""),
            ("-data -v", "--data=-v", ""),
            ("-data -- -on", "--data=-- --on", ""),
            ("-data", "--data", ""),
            ("-on -data v", "--on --data=v", ""),
            ("-on=false", "--on=false", ""),
            ("-on true -data v", "--on", "true -data v"),
            ("-data v extra -on", "--data=v", "extra -on"),
            ("-data v -- -on", "--data=v", "-on"),
            ("-data v -", "--data=v", "-"),
            ("-unknown v", "--unknown", "v"),
            ("-h", "--help", ""),
            ("-help", "--help", ""),
        ] {
            let words = line.split_whitespace().map(str::to_owned).collect();
            let got = normalize(&command, words);
            assert_eq!(
                (got.flags.join(" "), got.ignored.join(" ")),
                (flags.into(), ignored.into()),
                "{line}"
            );
        }
    }
}
