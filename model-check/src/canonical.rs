//! The canonical form of a state: what two states must share to have the same future.
//!
//! Everything is taken relative, so that a pair which has come to rest is in a state that was met
//! before, and the search ends:
//! - times are ages, and an age beyond the longest wait that the field takes part in is *old*;
//! - epochs, positions, incarnations and running numbers are renamed in order; numbers in which a
//!   step of one matters (epochs, positions) keep their distance, up to [`GAP_MAX`];
//! - words to people, and books that only they read, are left out.
//!
//! Not exact, knowingly: ages beyond the horizon lose their order among each other; the window of
//! pair restarts never passes once the pair has come to rest (its stamps count, their age does
//! not). Both merge states that could differ later, so they can hide a fault, never invent one.

use core::cell::Cell;
use core::fmt::Display;

use serde::ser::{self, Serialize};

/// Distances between epochs, or positions, that are told apart.
const GAP_MAX: u64 = 4;

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Age from which on a time is old where no other horizon is known: above every wait of the core
/// but that of a boot without a peer, the window of pair restarts, and waits that are kept as
/// deadlines.
const HORIZON: u64 = 4 * SECOND;

/// Values that are renamed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// Epoch counters of the whole site.
    Epochs,
    /// Positions and configuration hashes of the whole site.
    Positions,
    /// Starts of one node.
    Starts(u8),
    /// Writes of the node file of one node.
    Writes(u8),
    /// Postures of one node.
    Postures(u8),
    /// Questions to the VEMs of one node.
    Votes(u8),
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// As it is; ages up to [`HORIZON`].
    Plain,
    /// Left out.
    Skip,
    /// An age that matters up to this many seconds.
    Age(u64),
    /// A number of that group.
    Writes,
    Postures,
    Votes,
    Positions,
}

/// The fields that need more than [`Rule::Plain`]. The longest wait of this model's timing
/// (2 × 1 s) decides each horizon.
fn rule(owner: &str, field: &str) -> Rule {
    match (owner, field) {
        // Words, and books for people.
        (_, "reason" | "logged" | "lacks" | "outputs" | "revision")
        | ("Context", "started" | "degraded" | "links" | "health_since")
        | ("Peer", "first_heard" | "retired")
        | ("Hello", "uptime_ms")
        | ("NodeRecord", "reset_reasons" | "vems" | "peer")
        | ("Activating", "cause")
        | ("Active", "present" | "stable")
        | ("Node", "incarnation") => Rule::Skip,
        // Waits of one hold time.
        ("Peer", "heard" | "told")
        | ("Node", "heard" | "asked")
        | ("Round", "asked")
        | ("Votes", "isolated")
        | ("Standby", "isolated" | "probe" | "in_sync")
        | ("Leave", "behind_since" | "sent")
        | ("Pause", "resumed") => Rule::Age(4),
        ("Booting", "lonely_since") => Rule::Age(16),
        ("Active", "since") | ("Peer", "echo" | "hello_at") => Rule::Age(3),
        ("Booting", "since") | ("Writes", "pending_since") => Rule::Age(6),
        ("NodeRecord", "pair_restarts") => Rule::Age(0),
        ("Writes", "issued" | "durable" | "epochs" | "commands")
        | ("Grant", "Preparing")
        | ("Leave", "mark")
        | ("Activating" | "Resetting", "write")
        | ("Reservation", "Writing")
        | ("Node", "writes" | "last_write") => Rule::Writes,
        ("Context", "posture_sequence")
        | ("Active", "over_at")
        | ("Quiescing", "sequence")
        | ("Leave", "leading")
        | ("Node", "posture" | "idle_since")
        | ("VemReport", "asked") => Rule::Postures,
        ("Context", "votes") | ("Tally" | "Round", "vote") | ("Vem", "ballots") => Rule::Votes,
        ("SyncReport" | "Content", "config_hash") => Rule::Positions,
        _ => Rule::Plain,
    }
}

thread_local! {
    /// The rules at hand, from one encoding to the next.
    static KNOWN_RULES: Cell<Option<Box<[Known; KNOWN]>>> = const { Cell::new(None) };
}

/// One value of the encoding.
#[derive(Clone, Copy, Debug)]
enum Token {
    Raw(u64),
    Of(Group, u64),
}

/// Collects the canonical form.
pub(crate) struct Encoder {
    tokens: Vec<Token>,
    now: u64,
    node: u8,
    /// The rule in force: of the field under way.
    rule: Rule,
    known: Box<[Known; KNOWN]>,
}

/// A rule that was looked up, by the addresses and lengths of its names.
type Known = ((usize, usize, usize, usize), Rule);

/// Rules kept at hand; a power of two above the number of fields there are.
const KNOWN: usize = 1024;

impl Encoder {
    pub(crate) fn new(now: model::Time) -> Self {
        Self {
            tokens: Vec::with_capacity(1024),
            now: now.0,
            node: 0,
            rule: Rule::Plain,
            known: KNOWN_RULES
                .take()
                .unwrap_or_else(|| Box::new([((0, 0, 0, 0), Rule::Plain); KNOWN])),
        }
    }

    /// [`rule`], remembered: comparing texts would be most of the work of an encoding.
    fn rule_of(&mut self, owner: &'static str, field: &'static str) -> Rule {
        let key = (
            owner.as_ptr() as usize,
            owner.len(),
            field.as_ptr() as usize,
            field.len(),
        );
        let slot = (key.0.wrapping_mul(31) ^ key.2 ^ (key.3 << 4)) % KNOWN;
        if self.known[slot].0 != key {
            self.known[slot] = (key, rule(owner, field));
        }
        self.known[slot].1
    }

    /// The number that a newtype holds; of an array, its first element.
    fn plain<T: ?Sized + Serialize>(&mut self, value: &T) -> u64 {
        let start = self.tokens.len();
        let before = core::mem::replace(&mut self.rule, Rule::Plain);
        let _ = value.serialize(&mut *self);
        self.rule = before;
        let first = self.tokens.get(start).copied();
        self.tokens.truncate(start);
        match first {
            Some(Token::Raw(value) | Token::Of(_, value)) => value,
            None => 0,
        }
    }

    /// Encodes `value`, whose running numbers are those of `node`.
    pub(crate) fn encode<T: Serialize>(&mut self, node: u8, value: &T) {
        self.node = node;
        self.rule = Rule::Plain;
        // Infallible: no method of this serializer returns an error but for types without use here.
        let _ = value.serialize(&mut *self);
    }

    /// The canonical form as bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let mut seen: Vec<(Group, u64)> = self
            .tokens
            .iter()
            .filter_map(|token| match token {
                Token::Raw(_) => None,
                Token::Of(group, value) => Some((*group, *value)),
            })
            .filter(|(_, value)| *value != 0)
            .collect();
        seen.sort_unstable();
        seen.dedup();
        let mut names: Vec<u64> = Vec::with_capacity(seen.len());
        for (index, (group, value)) in seen.iter().enumerate() {
            let before = index
                .checked_sub(1)
                .map(|before| (seen[before], names[before]));
            names.push(match before {
                Some(((same, lower), name)) if same == *group => {
                    let gap = value - lower;
                    name + match group {
                        Group::Epochs | Group::Positions => gap.min(GAP_MAX),
                        Group::Starts(_)
                        | Group::Writes(_)
                        | Group::Postures(_)
                        | Group::Votes(_) => 1,
                    }
                }
                Some(_) | None => 1,
            });
        }
        let mut bytes = Vec::with_capacity(self.tokens.len() * 2);
        for token in core::mem::take(&mut self.tokens) {
            let value = match token {
                Token::Raw(value) => value,
                Token::Of(_, 0) => 0,
                Token::Of(group, value) => seen
                    .binary_search(&(group, value))
                    .map_or(0, |index| names[index]),
            };
            put(&mut bytes, value);
        }
        KNOWN_RULES.set(Some(self.known));
        bytes
    }

    fn number(&mut self, value: u64) {
        let token = match self.rule {
            Rule::Skip => return,
            Rule::Plain | Rule::Age(_) => Token::Raw(value),
            Rule::Writes => Token::Of(Group::Writes(self.node), value),
            Rule::Postures => Token::Of(Group::Postures(self.node), value),
            Rule::Votes => Token::Of(Group::Votes(self.node), value),
            Rule::Positions => Token::Of(Group::Positions, value),
        };
        self.push(token);
    }

    fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    fn time(&mut self, at: u64) {
        let horizon = match self.rule {
            Rule::Age(seconds) => seconds * SECOND,
            _ => HORIZON,
        };
        let age = if at > self.now {
            // Due in the future.
            (1 << 48) + (at - self.now).min(1 << 47)
        } else {
            (self.now - at).min(horizon)
        };
        self.push(Token::Raw(age));
    }

    fn field<T: ?Sized + Serialize>(
        &mut self,
        owner: &'static str,
        field: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        let rule = self.rule_of(owner, field);
        if rule == Rule::Skip {
            return Ok(());
        }
        let before = self.rule;
        if rule != Rule::Plain {
            self.rule = rule;
        } else if !matches!(before, Rule::Age(_)) {
            self.rule = Rule::Plain;
        }
        let result = value.serialize(&mut *self);
        self.rule = before;
        result
    }
}

/// LEB128: most values are below 128.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// An error that does not occur.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Never(String);

impl ser::Error for Never {
    fn custom<T: Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// A compound under way: its owner's name.
pub(crate) struct Compound<'a> {
    encoder: &'a mut Encoder,
    owner: &'static str,
}

impl<'a> ser::Serializer for &'a mut Encoder {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    fn serialize_bool(self, v: bool) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(v)));
        Ok(())
    }
    fn serialize_i8(self, v: i8) -> Result<(), Never> {
        self.serialize_i64(i64::from(v))
    }
    fn serialize_i16(self, v: i16) -> Result<(), Never> {
        self.serialize_i64(i64::from(v))
    }
    fn serialize_i32(self, v: i32) -> Result<(), Never> {
        self.serialize_i64(i64::from(v))
    }
    fn serialize_i64(self, v: i64) -> Result<(), Never> {
        self.push(Token::Raw(v as u64));
        Ok(())
    }
    fn serialize_u8(self, v: u8) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(v)));
        Ok(())
    }
    fn serialize_u16(self, v: u16) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(v)));
        Ok(())
    }
    fn serialize_u32(self, v: u32) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(v)));
        Ok(())
    }
    fn serialize_u64(self, v: u64) -> Result<(), Never> {
        self.number(v);
        Ok(())
    }
    fn serialize_f32(self, v: f32) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(v.to_bits())));
        Ok(())
    }
    fn serialize_f64(self, v: f64) -> Result<(), Never> {
        self.push(Token::Raw(v.to_bits()));
        Ok(())
    }
    fn serialize_char(self, v: char) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(u32::from(v))));
        Ok(())
    }
    /// Words are for people.
    fn serialize_str(self, _: &str) -> Result<(), Never> {
        Ok(())
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<(), Never> {
        for byte in v {
            self.push(Token::Raw(u64::from(*byte)));
        }
        Ok(())
    }
    fn serialize_none(self) -> Result<(), Never> {
        self.push(Token::Raw(0));
        Ok(())
    }
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Never> {
        self.push(Token::Raw(1));
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Never> {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Never> {
        Ok(())
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(index)));
        Ok(())
    }
    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        match name {
            "Time" => {
                let at = self.plain(value);
                self.time(at);
            }
            "Lsn" => {
                let lsn = self.plain(value);
                self.push(Token::Of(Group::Positions, lsn));
            }
            "Incarnation" => {
                let start = self.plain(value);
                // The model gives even numbers to one node and odd ones to the other.
                self.push(Token::Of(Group::Starts((start % 2) as u8), start));
            }
            "NodeKey" => {
                let key = self.plain(value);
                self.push(Token::Raw(key));
            }
            _ => return value.serialize(self),
        }
        Ok(())
    }
    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        self.push(Token::Raw(u64::from(index)));
        self.field(name, variant, value)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a>, Never> {
        self.push(Token::Raw(len.unwrap_or(0) as u64));
        Ok(Compound {
            encoder: self,
            owner: "",
        })
    }
    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>, Never> {
        Ok(Compound {
            encoder: self,
            owner: "",
        })
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, Never> {
        self.serialize_tuple(0)
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, Never> {
        self.push(Token::Raw(u64::from(index)));
        let rule = self.rule_of(name, variant);
        if rule != Rule::Plain {
            self.rule = rule;
        }
        self.serialize_tuple(0)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a>, Never> {
        self.serialize_seq(len)
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Compound<'a>, Never> {
        Ok(Compound {
            encoder: self,
            owner: name,
        })
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, Never> {
        self.push(Token::Raw(u64::from(index)));
        Ok(Compound {
            encoder: self,
            owner: name,
        })
    }
}

impl ser::SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(&mut *self.encoder)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

impl ser::SerializeTuple for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(&mut *self.encoder)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(&mut *self.encoder)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

impl ser::SerializeTupleVariant for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(&mut *self.encoder)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Never> {
        key.serialize(&mut *self.encoder)
    }
    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(&mut *self.encoder)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

impl ser::SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        if (self.owner, key) == ("Epoch", "counter") {
            let counter = self.encoder.plain(value);
            self.encoder.push(Token::Of(Group::Epochs, counter));
            return Ok(());
        }
        self.encoder.field(self.owner, key, value)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

impl ser::SerializeStructVariant for Compound<'_> {
    type Ok = ();
    type Error = Never;
    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        self.encoder.field(self.owner, key, value)
    }
    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}
