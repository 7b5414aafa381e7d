//! The command tree, as data.
//!
//! A [`Node`] is a token with help, where it may be used, its children, and, if a command may
//! end there, the function that makes the [`Command`] of the words matched so far.
//! [`Grammar::new`] builds one list of first words for each mode; nothing else in this crate
//! knows a keyword.

mod clear;
mod configuration;
mod exec;
mod module;
mod pairing;
mod show;
mod show_redundancy;
mod system_redundancy;

use core::net::Ipv4Addr;

use model::ObjectName;

use crate::command::Command;
use crate::mode::{Mode, Standing};

/// What one word may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// This word, or an unambiguous beginning of it.
    Keyword(&'static str),
    /// A whole number in a range, decimal, or hexadecimal after `0x`.
    Number {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// An IPv4 address.
    Address,
    /// The name of an object, with or without its organisation.
    Name,
    /// Any word of at most so many bytes.
    Word {
        /// Longest, in bytes.
        max_bytes: usize,
    },
}

impl Token {
    /// How `?` shows it: the keyword, `<1-4095>`, `A.B.C.D`, `NAME`, `WORD`.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            Self::Keyword(word) => word.to_owned(),
            Self::Number { min, max } => format!("<{min}-{max}>"),
            Self::Address => "A.B.C.D".to_owned(),
            Self::Name => "NAME".to_owned(),
            Self::Word { .. } => "WORD".to_owned(),
        }
    }
}

/// Who may use a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// May look.
    Operator,
    /// May change.
    Administrator,
}

/// Makes a command of the matched words.
pub(crate) type Build = fn(&Words) -> Result<Command, BadWord>;

/// One word of the grammar.
pub struct Node {
    /// What matches.
    pub token: Token,
    /// One line of help.
    pub help: &'static str,
    /// Who may use what begins here.
    pub privilege: Privilege,
    /// Whether it exists on a standby.
    pub on_standby: bool,
    /// What may follow.
    pub children: Vec<Self>,
    label: Option<&'static str>,
    build: Option<Build>,
}

impl Node {
    pub(crate) const fn new(token: Token, help: &'static str) -> Self {
        Self {
            token,
            help,
            privilege: Privilege::Operator,
            on_standby: true,
            children: Vec::new(),
            label: None,
            build: None,
        }
    }

    /// True if a command may end here.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.build.is_some()
    }

    pub(crate) const fn build(&self) -> Option<Build> {
        self.build
    }

    pub(crate) const fn label(&self) -> Option<&'static str> {
        self.label
    }

    fn named(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    fn ends(mut self, build: Build) -> Self {
        self.build = Some(build);
        self
    }

    fn then(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    fn then_all(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    fn administrator(mut self) -> Self {
        self.privilege = Privilege::Administrator;
        self
    }

    fn active_only(mut self) -> Self {
        self.on_standby = false;
        self
    }
}

fn keyword(word: &'static str, help: &'static str) -> Node {
    Node::new(Token::Keyword(word), help)
}

fn number(label: &'static str, min: u32, max: u32, help: &'static str) -> Node {
    Node::new(Token::Number { min, max }, help).named(label)
}

fn name(label: &'static str, help: &'static str) -> Node {
    Node::new(Token::Name, help).named(label)
}

fn address(label: &'static str, help: &'static str) -> Node {
    Node::new(Token::Address, help).named(label)
}

/// A word that matched a [`Node`] with a label: a keyword in full, anything else as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) label: &'static str,
    pub(crate) text: String,
}

/// The labelled words of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) words: Vec<Word>,
}

/// The word under `label` has the right form but no meaning here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadWord {
    pub(crate) label: &'static str,
    pub(crate) message: String,
}

impl Words {
    pub(crate) fn text(&self, label: &'static str) -> Option<&str> {
        self.words
            .iter()
            .find(|word| word.label == label)
            .map(|word| word.text.as_str())
    }

    fn required(&self, label: &'static str) -> Result<&str, BadWord> {
        self.text(label).ok_or_else(|| BadWord {
            label,
            message: "is missing".to_owned(),
        })
    }

    fn number<N: TryFrom<u32>>(&self, label: &'static str) -> Result<N, BadWord> {
        let text = self.required(label)?;
        let number = parse_number(text).and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| BadWord {
            label,
            message: "is not a number".to_owned(),
        })
    }

    fn address(&self, label: &'static str) -> Result<Ipv4Addr, BadWord> {
        let parsed = self.required(label)?.parse();
        parsed.map_err(|_| BadWord {
            label,
            message: "is not an address".to_owned(),
        })
    }

    fn name(&self, label: &'static str) -> Result<ObjectName, BadWord> {
        let parsed = ObjectName::new(self.required(label)?);
        parsed.map_err(|error| BadWord {
            label,
            message: error.to_string(),
        })
    }
}

/// Reads a decimal number, or a hexadecimal one after `0x`.
pub(crate) fn parse_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let plain = digits.chars().all(|c| c.is_digit(radix));
    if plain {
        u32::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

/// The first words of every mode.
pub struct Grammar {
    exec: Vec<Node>,
    config: Vec<Node>,
    object_group: Vec<Node>,
    policy: Vec<Node>,
    rule: Vec<Node>,
    security_profile: Vec<Node>,
    zone: Vec<Node>,
}

impl Default for Grammar {
    fn default() -> Self {
        Self::new()
    }
}

impl Grammar {
    /// The whole grammar.
    #[must_use]
    pub fn new() -> Self {
        Self {
            exec: exec::commands(),
            config: configuration::global(),
            object_group: configuration::object_group(),
            policy: configuration::policy(),
            rule: configuration::rule(),
            security_profile: configuration::security_profile(),
            zone: configuration::zone(),
        }
    }

    /// The first words of `mode` itself.
    #[must_use]
    pub fn first_words(&self, mode: &Mode) -> &[Node] {
        match mode {
            Mode::Exec => &self.exec,
            Mode::Config => &self.config,
            Mode::ObjectGroup(_) => &self.object_group,
            Mode::Policy(_) => &self.policy,
            Mode::Rule(_) => &self.rule,
            Mode::SecurityProfile(_) => &self.security_profile,
            Mode::Zone(_) => &self.zone,
        }
    }
}

/// The nodes of `nodes` that exist where the session stands.
pub(crate) fn visible(nodes: &[Node], standing: Standing) -> impl Iterator<Item = &Node> {
    nodes
        .iter()
        .filter(move |node| standing == Standing::Active || node.on_standby)
}
