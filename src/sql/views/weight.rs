//! What preparing a view that does not work may take, told from texts.
//!
//! SQLite works out the columns of a view before it asks for permission, so that of a view which turns out to be
//! broken nothing is counted. What it does until then follows from the text: each view, common table expression,
//! window and name of a result is put in as often as it is named; each name is looked for among all columns around
//! it, `*` becomes as many columns as there are, and each term to sort or group by is compared with each result.
//! (What doubles with each level of nesting comes later, when code is made; [`preparing`](crate::sql::preparing) counts it.)
//!
//! It is an estimate from above, on the same schema always the same: at most of what SQLite would do if the error
//! came last. Parentheses are the nodes of a graph, and the results that have a name of their own; an edge leads
//! to what is inside, or is named. Its work is in proportion to the texts.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use rustc_hash::FxHashSet;

use crate::sql::text;

/// What looking at a view counts for by itself, in VM instructions.
const STEPS_PER_VIEW: u64 = 640;
/// What each word, number or string counts for; each sign; each SELECT.
const STEPS_PER_WORD: u64 = 20;
const STEPS_PER_SIGN: u64 = 3;
const STEPS_PER_SELECT: u64 = 48;
/// What each column counts for that a `*` stands for, and for each level of what is around it.
const STEPS_PER_STAR: u64 = 48;
const STEPS_PER_STAR_LEVEL: u64 = 3;
/// Columns among which a name is looked for that count for one instruction. A name that is put into words counts
/// for several.
const COLUMNS_PER_STEP: u64 = 16;
const COLUMNS_PER_NAME: u64 = 4;
/// Bytes of a word, beyond which others may be equal to it so far that looking for it takes longer.
const BYTES_FREE: u64 = 7;
/// Words of terms to sort by, each with one result, that count for one instruction.
const TERMS_PER_STEP: u64 = 2;
/// Columns that a result may have.
const COLUMNS_MAX: u64 = 2_000;
/// Pairs of columns, of tables joined by columns of one name, that count for one instruction.
const COLUMN_PAIRS_PER_STEP: u64 = 40;
/// Tables that views and subqueries may bring to one join, and what each of more counts for, times the square root of
/// how many they are: SQLite puts them all into one list before it says that they are too many.
const JOINED_MAX: u64 = 64;
const STEPS_PER_JOINED: u64 = 40;
/// Bytes that count for one instruction.
const BYTES_PER_STEP: u64 = 16;

/// Words before which, and behind which, an operand stands: what follows such a word is no name of a result.
const OPERATORS: [&str; 24] = [
    "ALL", "AND", "BETWEEN", "BY", "CASE", "COLLATE", "DISTINCT", "ELSE", "ESCAPE", "EXISTS",
    "FILTER", "FROM", "GLOB", "IN", "IS", "LIKE", "MATCH", "NOT", "OR", "OVER", "REGEXP", "SELECT",
    "THEN", "WHEN",
];
/// Words that end an operand, and are no name of a result.
const ENDS: [&str; 4] = ["END", "ISNULL", "NOTNULL", "NULL"];

/// What a view comes to.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    steps: u64,
    /// Columns.
    width: u64,
    /// Views and parentheses in one another.
    level: u64,
    /// Tables that it brings to a join.
    joined: u64,
}

/// The views of a schema, weighed as they are asked for.
#[derive(Debug)]
pub(super) struct Weights {
    /// Their texts, by their names in lower case.
    texts: FxHashMap<String, String>,
    /// What is known of them; that of one which is being weighed is nothing.
    known: FxHashMap<String, Weight>,
    /// Columns of the widest table.
    width: u64,
}

impl Weights {
    /// Those of `views`, by name and text, where tables have up to `width` columns.
    pub(super) fn new(views: impl IntoIterator<Item = (String, String)>, width: u64) -> Self {
        let texts =
            views.into_iter().map(|(name, text)| (name.to_ascii_lowercase(), text)).collect();
        Self { texts, known: FxHashMap::default(), width }
    }

    /// What preparing what reads the view `name` may take, in VM instructions, if the view is broken.
    pub(super) fn of(&mut self, name: &str) -> u64 {
        let name = name.to_ascii_lowercase();
        if !self.known.contains_key(&name) {
            let mut open = vec![self.begin(name.clone())];
            while let Some((view, mentioned)) = open.last_mut() {
                if let Some(next) = mentioned.pop() {
                    // One that is open is part of a circle, of which SQLite takes each member once.
                    if !self.known.contains_key(&next) {
                        let begun = self.begin(next);
                        open.push(begun);
                    }
                    continue;
                }
                let weight = weigh(&self.texts[view], &self.known, self.width);
                self.known.insert(std::mem::take(view), weight);
                open.pop();
            }
        }
        self.known.get(&name).map_or(0, |it| {
            let joined = if it.joined > JOINED_MAX { it.joined } else { 0 };
            let joins = joined.saturating_mul(joined.isqrt()).saturating_mul(STEPS_PER_JOINED);
            it.steps.saturating_add(joins)
        })
    }

    /// Begin to weigh `view`; give it with those that it mentions.
    fn begin(&mut self, view: String) -> (String, Vec<String>) {
        self.known.insert(view.clone(), Weight::default());
        let text = self.texts.entry(view.clone()).or_default();
        let text = std::mem::take(text);
        let names = tokens(&text).into_iter().filter_map(name_of);
        let mentioned =
            names.filter(|it| self.texts.contains_key(&**it)).map(Cow::into_owned).collect();
        self.texts.insert(view.clone(), text);
        (view, mentioned)
    }
}

/// Where in a SELECT a token stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Other,
    /// Its results.
    List,
    /// Its tables.
    From,
    /// What it is sorted or grouped by.
    Terms,
    /// The rows of `VALUES`.
    Values,
}

/// What a [`Frame`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    /// A result, or several with the same name.
    Item,
    /// It stands among the tables of a SELECT, or may be named there.
    Table,
}

/// What stands in one pair of parentheses; or a result with a name, or several with the same name.
#[derive(Debug, Default)]
struct Frame {
    parent: usize,
    kind: Kind,
    has_select: bool,
    part: Part,
    /// The next token begins a result.
    is_item_due: bool,
    /// What its own tokens, and the views that they name, count for.
    steps: u64,
    /// What the views give.
    width: u64,
    level: u64,
    joined: u64,
    /// Its words, one for each that is short.
    words: u64,
    /// Tokens, those inside of it included.
    tokens: u64,
    /// Tables, results, `*`, and names of results, of the SELECT at hand.
    tables: u64,
    results: u64,
    stars: u64,
    names: u64,
    /// Some are joined by columns of one name.
    is_natural: bool,
    /// The most of any SELECT, and what all `*` stand for, in tables.
    tables_max: u64,
    results_max: u64,
    names_max: u64,
    star_tables: u64,
    star_tables_max: u64,
    /// Pairs of tables joined by columns of one name, of all.
    natural_pairs: u64,
    /// SELECTs that are put together, and common table expressions and windows.
    arms: u64,
    definitions: u64,
    /// Tokens of what it is sorted or grouped by.
    terms: u64,
    /// Results with a name: of the SELECT at hand, and of all.
    named: Vec<(String, usize)>,
    all_named: Vec<(String, usize)>,
    /// Those that may be named now.
    visible: Vec<String>,
}

impl Frame {
    fn end_select(&mut self) {
        self.tables_max = self.tables_max.max(self.tables);
        self.results_max = self.results_max.max(self.results.saturating_sub(self.stars));
        self.names_max = self.names_max.max(self.names);
        let star_tables = self.stars.saturating_mul(self.tables);
        self.star_tables = self.star_tables.saturating_add(star_tables);
        self.star_tables_max = self.star_tables_max.max(star_tables);
        if self.is_natural {
            let pairs = self.tables.saturating_mul(self.tables);
            self.natural_pairs = self.natural_pairs.saturating_add(pairs);
        }
        (self.tables, self.results, self.stars, self.names) = (0, 0, 0, 0);
        self.is_natural = false;
    }
}

/// A text that is being read.
struct Reader<'a> {
    tokens: Vec<&'a str>,
    frames: Vec<Frame>,
    /// From a frame to one inside of it, or one that it names.
    edges: Vec<(usize, usize)>,
    here: usize,
    /// Results that may be named.
    visible: FxHashMap<String, Vec<usize>>,
    /// Common table expressions and windows, by the frame where they are made.
    definitions: FxHashMap<(usize, String), Vec<usize>>,
    /// Words that may name one of those.
    mentions: Vec<(usize, usize)>,
    /// Those that name them as they are made.
    made: FxHashSet<usize>,
}

/// What the view comes to whose text is `sql`.
fn weigh(sql: &str, known: &FxHashMap<String, Weight>, width: u64) -> Weight {
    let tokens = tokens(sql);
    let mut reader = Reader {
        tokens,
        frames: vec![Frame::default()],
        edges: Vec::new(),
        here: 0,
        visible: FxHashMap::default(),
        definitions: FxHashMap::default(),
        mentions: Vec::new(),
        made: FxHashSet::default(),
    };
    reader.read(known);
    reader.resolve();
    let found = reader.sum(width);
    Weight { steps: found.steps.saturating_add(STEPS_PER_VIEW), ..found }
}

impl Reader<'_> {
    fn read(&mut self, known: &FxHashMap<String, Weight>) {
        let has_definitions = self.tokens.iter().any(|it| is(it, "WITH") || is(it, "WINDOW"));
        for at in 0..self.tokens.len() {
            let token = self.tokens[at];
            if self.ends_item(at) {
                self.end_item(at);
            }
            self.begin_item(at);
            let frame = &mut self.frames[self.here];
            frame.tokens += 1;
            if frame.part == Part::Terms {
                frame.terms += 1;
            }
            match token {
                "(" => self.open(at),
                ")" => self.close(),
                "," => self.comma(),
                "*" if self.is_star(at) => {
                    let select = self.select();
                    self.frames[select].stars += 1;
                }
                _ => {}
            }
            let Some(name) = name_of(token) else {
                self.add(STEPS_PER_SIGN);
                continue;
            };
            let n_bytes = u64::try_from(name.len()).unwrap_or(u64::MAX);
            self.add(STEPS_PER_WORD + n_bytes / BYTES_PER_STEP);
            if is_number(token) {
                continue;
            }
            self.frames[self.here].words += n_bytes.saturating_sub(BYTES_FREE).max(1);
            if is_word(token) {
                self.keyword(at);
            }
            // What stands behind `AS` is named, not meant.
            if !self.visible.is_empty()
                && !is(self.before(at, 1), "AS")
                && let Some(results) = self.visible.get(&*name)
                && let Some(&result) = results.last()
            {
                self.edges.push((self.here, result));
            }
            if has_definitions {
                self.mentions.push((self.here, at));
            }
            if let Some(view) = known.get(&*name) {
                self.add(view.steps);
                let frame = &mut self.frames[self.here];
                frame.width = frame.width.max(view.width);
                frame.level = frame.level.max(view.level);
                if frame.part == Part::From {
                    frame.joined = frame.joined.saturating_add(view.joined);
                }
            }
        }
        while self.here > 0 {
            self.close();
        }
        self.end_list(0);
        self.frames[0].end_select();
    }

    fn add(&mut self, steps: u64) {
        let frame = &mut self.frames[self.here];
        frame.steps = frame.steps.saturating_add(steps);
    }

    fn before(&self, at: usize, n: usize) -> &str {
        at.checked_sub(n).map_or("", |it| self.tokens[it])
    }

    fn after(&self, at: usize, n: usize) -> &str {
        self.tokens.get(at + n).copied().unwrap_or_default()
    }

    /// The frame of the SELECT at hand.
    fn select(&self) -> usize {
        if self.frames[self.here].kind == Kind::Item {
            self.frames[self.here].parent
        } else {
            self.here
        }
    }

    fn is_star(&self, at: usize) -> bool {
        let before = self.before(at, 1);
        [",", "."].contains(&before)
            || ["SELECT", "ALL", "DISTINCT"].iter().any(|it| is(before, it))
    }

    /// Whether the token ends the list of results that it stands in.
    fn ends_list(&self, at: usize) -> bool {
        let token = self.tokens[at];
        let words = ["WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT"];
        token == ")"
            || words.iter().any(|it| is(token, it))
            || (is(token, "FROM") && !is(self.before(at, 1), "DISTINCT"))
            || (is(token, "WINDOW") && is(self.after(at, 2), "AS"))
    }

    fn ends_item(&self, at: usize) -> bool {
        self.frames[self.here].kind == Kind::Item && (self.tokens[at] == "," || self.ends_list(at))
    }

    /// The result before the token is at its end: it may have a name.
    fn end_item(&mut self, at: usize) {
        let (item, parent) = (self.here, self.frames[self.here].parent);
        self.here = parent;
        self.frames[parent].tokens += self.frames[item].tokens;
        let (last, before) = (self.before(at, 1), self.before(at, 2));
        let is_one_of = |token: &str, words: &[&str]| words.iter().any(|it| is(token, it));
        let follows_operand = before == ")" || name_of(before).is_some();
        let is_name = follows_operand && !is_one_of(before, &OPERATORS) && !is_one_of(last, &ENDS);
        let name = name_of(last).filter(|_| is_name).map(Cow::into_owned);
        if let Some(name) = name {
            self.frames[parent].names += 1;
            self.frames[parent].named.push((name, item));
        }
    }

    /// Begin a result, if one begins here that is more than a word.
    fn begin_item(&mut self, at: usize) {
        let token = self.tokens[at];
        if !self.frames[self.here].is_item_due || is(token, "DISTINCT") || is(token, "ALL") {
            return;
        }
        self.frames[self.here].is_item_due = false;
        if self.after(at, 1) != "," {
            self.push(self.here, Frame { kind: Kind::Item, ..Frame::default() });
        }
    }

    /// A frame begins, which is part of `whole`.
    fn push(&mut self, whole: usize, frame: Frame) {
        let (parent, new) = (self.here, self.frames.len());
        self.frames.push(Frame { parent, ..frame });
        self.edges.push((whole, new));
        self.here = new;
    }

    fn open(&mut self, at: usize) {
        let before = self.before(at, 1);
        let is_group = self.frames[self.here].part == Part::From
            && ([",", "("].contains(&before) || is(before, "FROM") || is(before, "JOIN"));
        let (part, tables) = if is_group { (Part::From, 1) } else { (Part::Other, 0) };
        let mut kind =
            if self.frames[self.here].part == Part::From { Kind::Table } else { Kind::Other };
        let mut whole = self.here;
        if let Some((named_at, name)) = self.definition(at) {
            kind = Kind::Table;
            self.made.insert(named_at);
            // It is part of what names it; and once of all, where it is no table.
            whole = self.frames.len();
            self.frames.push(Frame { parent: whole, kind: Kind::Item, ..Frame::default() });
            self.edges.push((0, whole));
            let definitions = self.definitions.entry((self.here, name)).or_default();
            definitions.push(whole + 1);
            self.frames[self.here].definitions += 1;
        }
        self.push(whole, Frame { kind, part, tables, ..Frame::default() });
    }

    /// The name of what the parenthesis defines: `name AS (`, `name(a, b) AS NOT MATERIALIZED (`.
    fn definition(&self, at: usize) -> Option<(usize, String)> {
        let mut at = at.checked_sub(1)?;
        if is(self.tokens[at], "MATERIALIZED") {
            at = at.checked_sub(1)?;
            if is(self.tokens[at], "NOT") {
                at = at.checked_sub(1)?;
            }
        }
        if !is(self.tokens[at], "AS") {
            return None;
        }
        at = at.checked_sub(1)?;
        if self.tokens[at] == ")" {
            // Only names stand between.
            at = (0..at).rev().find(|it| self.tokens[*it] == "(")?.checked_sub(1)?;
        }
        name_of(self.tokens[at]).map(|it| (at, it.into_owned()))
    }

    fn close(&mut self) {
        let here = self.here;
        if here == 0 {
            return;
        }
        if self.frames[here].kind == Kind::Item {
            // The text ends here.
            self.end_item(self.tokens.len());
            return;
        }
        self.end_list(here);
        self.hide(here);
        let parent = self.frames[here].parent;
        let frame = &mut self.frames[here];
        let (tokens, tables, has_select) = (frame.tokens, frame.tables, frame.has_select);
        let is_natural = frame.is_natural && !has_select;
        if !has_select {
            frame.tables = 0;
        }
        frame.end_select();
        self.here = parent;
        let frame = &mut self.frames[parent];
        frame.tokens += tokens;
        if frame.part == Part::Terms {
            frame.terms += tokens;
        }
        if frame.part == Part::From && !has_select {
            frame.tables += tables;
            frame.is_natural |= is_natural;
        }
    }

    fn comma(&mut self) {
        let frame = &mut self.frames[self.here];
        match frame.part {
            Part::List => {
                frame.results += 1;
                frame.is_item_due = true;
            }
            Part::From => frame.tables += 1,
            Part::Values => frame.arms += 1,
            Part::Terms | Part::Other => {}
        }
    }

    fn keyword(&mut self, at: usize) {
        let token = self.tokens[at];
        let here = self.here;
        if is(token, "SELECT") {
            self.add(STEPS_PER_SELECT);
            self.hide(here);
            let frame = &mut self.frames[here];
            frame.tables = 0;
            frame.end_select();
            (frame.has_select, frame.part) = (true, Part::List);
            (frame.results, frame.is_item_due) = (1, true);
            frame.arms += 1;
        } else if is(token, "VALUES") {
            self.add(STEPS_PER_SELECT);
            let frame = &mut self.frames[here];
            (frame.has_select, frame.part) = (true, Part::Values);
            frame.arms += 1;
        } else if is(token, "JOIN") {
            self.frames[here].tables += 1;
        } else if is(token, "NATURAL") || is(token, "USING") {
            self.frames[here].is_natural = true;
        } else if self.frames[here].has_select && self.ends_list(at) {
            self.end_list(here);
            let frame = &mut self.frames[here];
            if is(token, "UNION") || is(token, "EXCEPT") || is(token, "INTERSECT") {
                frame.end_select();
            }
            frame.part = match token {
                it if is(it, "FROM") => Part::From,
                it if is(it, "GROUP") || is(it, "ORDER") => Part::Terms,
                _ => Part::Other,
            };
            if is(token, "FROM") {
                frame.tables += 1;
            }
            if is(token, "ORDER") && self.frames[here].arms > 1 {
                self.show_all(here);
            }
        }
    }

    /// What the results are called may be named from here on.
    fn end_list(&mut self, select: usize) {
        for (name, item) in std::mem::take(&mut self.frames[select].named) {
            self.show(select, name.clone(), item);
            self.frames[select].all_named.push((name, item));
        }
    }

    fn show(&mut self, select: usize, name: String, item: usize) {
        self.visible.entry(name.clone()).or_default().push(item);
        self.frames[select].visible.push(name);
    }

    fn hide(&mut self, select: usize) {
        for name in std::mem::take(&mut self.frames[select].visible) {
            if let Some(results) = self.visible.get_mut(&name) {
                results.pop();
            }
        }
    }

    /// A term to sort several SELECTs by may name a result of any, and is looked for in each.
    fn show_all(&mut self, select: usize) {
        let mut groups: FxHashMap<String, usize> = FxHashMap::default();
        for (name, item) in std::mem::take(&mut self.frames[select].all_named) {
            let next = self.frames.len();
            let group = *groups.entry(name.clone()).or_insert(next);
            if group == next {
                self.frames.push(Frame { parent: next, kind: Kind::Item, ..Frame::default() });
                self.show(select, name, group);
            }
            self.edges.push((group, item));
        }
    }

    /// Find what words mean that may name a common table expression or a window.
    fn resolve(&mut self) {
        if self.definitions.is_empty() {
            return;
        }
        // The next frame outward, or this one, that makes any.
        let mut makers: Vec<Option<usize>> = Vec::with_capacity(self.frames.len());
        for (at, frame) in self.frames.iter().enumerate() {
            let outer = if frame.parent < at { makers[frame.parent] } else { None };
            makers.push(if frame.definitions > 0 { Some(at) } else { outer });
        }
        let mut found: FxHashMap<(usize, String), Option<usize>> = FxHashMap::default();
        for (from, at) in std::mem::take(&mut self.mentions) {
            let (Some(maker), Some(name)) = (makers[from], name_of(self.tokens[at])) else {
                continue;
            };
            if self.made.contains(&at) {
                continue;
            }
            let mut passed = Vec::new();
            let mut next = Some(maker);
            let mut target = None;
            while let Some(maker) = next {
                let key = (maker, name.to_string());
                if let Some(known) = found.get(&key) {
                    target = *known;
                    break;
                }
                if let Some(definitions) = self.definitions.get(&key) {
                    target = definitions.last().copied();
                    passed.push(key);
                    break;
                }
                passed.push(key);
                let parent = self.frames[maker].parent;
                next = if parent < maker { makers[parent] } else { None };
            }
            found.extend(passed.into_iter().map(|it| (it, target)));
            self.edges.extend(target.map(|it| (from, it)));
        }
    }

    /// What it all comes to.
    fn sum(mut self, width: u64) -> Weight {
        for at in (1..self.frames.len()).rev() {
            let Frame { parent, words, .. } = self.frames[at];
            if parent < at {
                self.frames[parent].words = self.frames[parent].words.saturating_add(words);
            }
        }
        self.edges.sort_unstable();
        let mut starts = vec![0; self.frames.len() + 1];
        for (from, _) in &self.edges {
            starts[from + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut done: Vec<Option<Weight>> = vec![None; self.frames.len()];
        // Frames that are being summed, each with its next edge and what it has so far.
        let mut open = vec![(0, starts[0], self.begin_sum(0))];
        done[0] = Some(Weight::default());
        while let Some((at, next, so_far)) = open.last_mut() {
            if *next < starts[*at + 1] {
                let to = self.edges[*next].1;
                if let Some(weight) = done[to] {
                    so_far.steps = so_far.steps.saturating_add(weight.steps);
                    so_far.width = so_far.width.max(weight.width);
                    so_far.level = so_far.level.max(weight.level);
                    if self.frames[to].kind == Kind::Table {
                        so_far.joined = so_far.joined.saturating_add(weight.joined);
                    }
                    *next += 1;
                } else {
                    // Nothing, should it name itself.
                    done[to] = Some(Weight::default());
                    let begun = (to, starts[to], self.begin_sum(to));
                    open.push(begun);
                }
                continue;
            }
            let (at, weight) = (*at, self.frames[*at].end_sum(*so_far, width));
            done[at] = Some(weight);
            open.pop();
        }
        done[0].unwrap_or_default()
    }

    fn begin_sum(&self, at: usize) -> Weight {
        let Frame { steps, width, level, joined, .. } = self.frames[at];
        Weight { steps, width, level, joined }
    }
}

impl Frame {
    /// What it comes to with `inside` of it, or named by it, where tables have up to `width` columns.
    fn end_sum(&self, inside: Weight, width: u64) -> Weight {
        let widest = inside.width.max(width);
        let columns = (self.tables_max.saturating_mul(widest))
            .saturating_add((self.names_max + self.definitions).saturating_mul(COLUMNS_PER_NAME));
        let names = self.words.saturating_mul(columns) / COLUMNS_PER_STEP;
        let per_star = STEPS_PER_STAR + inside.level.saturating_mul(STEPS_PER_STAR_LEVEL);
        let stars = self.star_tables.saturating_mul(widest).saturating_mul(per_star);
        let pairs = self.natural_pairs.saturating_mul(widest.saturating_mul(widest));
        let n_results = (self.star_tables_max.saturating_mul(widest))
            .saturating_add(self.results_max)
            .min(COLUMNS_MAX);
        let terms = (self.terms.saturating_mul(n_results)).saturating_mul(self.arms.max(1));
        Weight {
            steps: (inside.steps.saturating_add(names).saturating_add(stars))
                .saturating_add(terms / TERMS_PER_STEP)
                .saturating_add(pairs / COLUMN_PAIRS_PER_STEP),
            width: match (self.kind, self.has_select) {
                (Kind::Item, _) => 0,
                (_, true) => n_results,
                (_, false) => inside.width,
            },
            level: inside.level.saturating_add(u64::from(self.has_select)),
            joined: inside.joined.saturating_add(self.tables_max),
        }
    }
}

/// The tokens of `sql`, without blanks and comments. What is quoted is one, whatever quotes are doubled in it.
fn tokens(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let start = at;
        at += text::token(&sql[at..]);
        let quote = sql[start..].chars().next().filter(|it| ['"', '\'', '`'].contains(it));
        if let Some(quote) = quote {
            while sql[at..].starts_with(quote) {
                at += text::token(&sql[at..]);
            }
        }
        let token = &sql[start..at];
        if !text::is_blank(token) {
            found.push(token);
        }
    }
    found
}

/// What `token` may name, in lower case: none if it is a sign.
fn name_of(token: &str) -> Option<Cow<'_, str>> {
    if is_word(token) {
        let is_lower = !token.bytes().any(|it| it.is_ascii_uppercase());
        let lower = || Cow::Owned(token.to_ascii_lowercase());
        return Some(if is_lower { Cow::Borrowed(token) } else { lower() });
    }
    let quotes = [("\"", "\""), ("'", "'"), ("`", "`"), ("[", "]")];
    let (open, close) = quotes.into_iter().find(|(open, _)| token.starts_with(open))?;
    let name = token.strip_prefix(open)?;
    let name = name.strip_suffix(close).unwrap_or(name);
    Some(Cow::Owned(name.replace(&close.repeat(2), close).to_ascii_lowercase()))
}

fn is_number(token: &str) -> bool {
    token.starts_with(|it: char| it.is_ascii_digit())
}

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(text::is_of_name)
}

fn is(token: &str, word: &str) -> bool {
    token.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests;
