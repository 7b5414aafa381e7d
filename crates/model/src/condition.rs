//! The words of a policy that the shell, the configuration and the classifier share: the names
//! of objects, the attributes of a packet, the tests on them and the actions of a rule.
//!
//! Invariants:
//! - an [`ObjectName`] is always qualified by its organisation (`web@root`), so that one object
//!   has one spelling and equal configurations have equal text;
//! - a [`Condition`] exists only if its test makes sense for its attribute (no `gt` on a zone,
//!   no `contains` on a port): [`Condition::new`] is the only way to make one;
//! - an address with a mask has no host bits below the mask, and the mask is contiguous.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest own part of an object's name, in bytes: the original's controller stops at 32.
pub const OBJECT_NAME_MAX_BYTES: usize = 32;

/// Longest organisation path (`root/Tenant/App`), in bytes: four levels of 32 with separators.
const ORGANISATION_MAX_BYTES: usize = 131;

/// Why a text is not an object's name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ObjectNameError {
    /// The own part is empty, too long, or has a character outside `[A-Za-z0-9_.:/-]`.
    #[error("bad object name {name:?}: 1 to 32 of A-Z a-z 0-9 - _ . : / before the '@'")]
    Own {
        /// The text that was offered.
        name: String,
    },
    /// The organisation does not start at `root`, or has an empty or overlong part.
    #[error("bad organisation in {name:?}: it starts with root, parts are separated by '/'")]
    Organisation {
        /// The text that was offered.
        name: String,
    },
}

/// The qualified name of a zone, object group, rule, policy or security profile: `web@root`.
///
/// A name without `@` belongs to `root`. The own part may hold a `/`, because the built-in rule
/// is called `default/default-rule@root`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

impl ObjectName {
    /// Parses and qualifies `text`.
    ///
    /// # Errors
    /// [`ObjectNameError`] when a part is empty, too long or has a forbidden character.
    pub fn new(text: &str) -> Result<Self, ObjectNameError> {
        let (own, organisation) = text.split_once('@').unwrap_or((text, "root"));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
        if own.is_empty() || own.len() > OBJECT_NAME_MAX_BYTES || !own.chars().all(allowed) {
            return Err(ObjectNameError::Own {
                name: text.to_owned(),
            });
        }
        let mut parts = organisation.split('/');
        let from_root = parts.next() == Some("root");
        let whole = parts.all(|part| !part.is_empty() && part.chars().all(allowed));
        if !from_root || !whole || organisation.len() > ORGANISATION_MAX_BYTES {
            return Err(ObjectNameError::Organisation {
                name: text.to_owned(),
            });
        }
        Ok(Self(format!("{own}@{organisation}")))
    }

    /// The qualified text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = ObjectNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

/// Which end of a packet an attribute speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// `src.`: the sender's end.
    Source,
    /// `dst.`: the receiver's end.
    Destination,
    /// No prefix: both ends share it (protocol), or the end is given by the context (a zone's
    /// address, a group's port).
    Neutral,
}

/// What an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Field {
    /// `net.ip-address`: an IPv4 address.
    IpAddress,
    /// `net.port`: a TCP or UDP port.
    Port,
    /// `net.protocol`: the IP protocol number.
    Protocol,
    /// `net.ethertype`: the Ethernet type, written in hexadecimal.
    Ethertype,
    /// `zone.name`: a zone that contains the address of that side.
    ZoneName,
}

impl Field {
    /// The largest value of a numeric field; addresses count as 32-bit numbers.
    #[must_use]
    pub const fn largest(self) -> u32 {
        match self {
            Self::IpAddress => u32::MAX,
            Self::Port | Self::Ethertype => 65_535,
            Self::Protocol => 255,
            Self::ZoneName => 0,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::IpAddress => "net.ip-address",
            Self::Port => "net.port",
            Self::Protocol => "net.protocol",
            Self::Ethertype => "net.ethertype",
            Self::ZoneName => "zone.name",
        }
    }
}

/// A named property of a packet: `src.net.ip-address`, `net.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// Which end.
    pub side: Side,
    /// Which property.
    pub field: Field,
}

impl Attribute {
    /// Every attribute there is, in the order that help shows them.
    pub const ALL: [Self; 11] = [
        Self::of(Side::Source, Field::IpAddress),
        Self::of(Side::Source, Field::Port),
        Self::of(Side::Source, Field::ZoneName),
        Self::of(Side::Destination, Field::IpAddress),
        Self::of(Side::Destination, Field::Port),
        Self::of(Side::Destination, Field::ZoneName),
        Self::of(Side::Neutral, Field::IpAddress),
        Self::of(Side::Neutral, Field::Port),
        Self::of(Side::Neutral, Field::Protocol),
        Self::of(Side::Neutral, Field::Ethertype),
        Self::of(Side::Neutral, Field::ZoneName),
    ];

    /// The attribute of that side and field.
    #[must_use]
    pub const fn of(side: Side, field: Field) -> Self {
        Self { side, field }
    }

    /// The grammar's keyword for it.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match (self.side, self.field) {
            (Side::Source, Field::IpAddress) => "src.net.ip-address",
            (Side::Source, Field::Port) => "src.net.port",
            (Side::Source, Field::ZoneName) => "src.zone.name",
            (Side::Destination, Field::IpAddress) => "dst.net.ip-address",
            (Side::Destination, Field::Port) => "dst.net.port",
            (Side::Destination, Field::ZoneName) => "dst.zone.name",
            (_, field) => field.text(),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.keyword())
    }
}

/// The right-hand side of a test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// An address, or with a mask shorter than /32 a network.
    Address {
        /// The address, host bits cleared.
        ip: Ipv4Addr,
        /// The contiguous mask; 255.255.255.255 for one host.
        mask: Ipv4Addr,
    },
    /// A port, a protocol or an Ethernet type.
    Number(u16),
    /// A zone.
    Zone(ObjectName),
}

impl Value {
    /// A network, with the host bits of `ip` cleared; `None` when the mask has holes.
    #[must_use]
    pub fn network(ip: Ipv4Addr, mask: Ipv4Addr) -> Option<Self> {
        let bits = u32::from(mask);
        if bits.leading_ones() + bits.trailing_zeros() < 32 {
            return None;
        }
        Some(Self::Address {
            ip: Ipv4Addr::from(u32::from(ip) & bits),
            mask,
        })
    }

    /// One host.
    #[must_use]
    pub const fn host(ip: Ipv4Addr) -> Self {
        Self::Address {
            ip,
            mask: Ipv4Addr::BROADCAST,
        }
    }

    /// The first and last number it stands for; a zone stands for none.
    #[must_use]
    pub fn range(&self) -> Option<(u32, u32)> {
        match self {
            Self::Address { ip, mask } => {
                let first = u32::from(*ip);
                Some((first, first | !u32::from(*mask)))
            }
            Self::Number(number) => Some((u32::from(*number), u32::from(*number))),
            Self::Zone(_) => None,
        }
    }

    fn fits(&self, field: Field) -> bool {
        match self {
            Self::Address { .. } => field == Field::IpAddress,
            Self::Number(number) => {
                matches!(field, Field::Port | Field::Protocol | Field::Ethertype)
                    && u32::from(*number) <= field.largest()
            }
            Self::Zone(_) => field == Field::ZoneName,
        }
    }

    fn is_single(&self) -> bool {
        self.range().is_none_or(|(first, last)| first == last)
    }

    fn text(&self, field: Field) -> String {
        match self {
            Self::Address { ip, mask } if *mask == Ipv4Addr::BROADCAST => ip.to_string(),
            Self::Address { ip, mask } => format!("{ip} {mask}"),
            Self::Number(number) if field == Field::Ethertype => format!("{number:#x}"),
            Self::Number(number) => number.to_string(),
            Self::Zone(name) => name.to_string(),
        }
    }
}

/// What must hold of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Test {
    /// Part of the text of a zone's name.
    Contains(String),
    /// Equal; for a network: inside it; for a zone: in it.
    Eq(Value),
    /// Greater than.
    Gt(Value),
    /// Between both, ends included.
    InRange(Value, Value),
    /// Less than.
    Lt(Value),
    /// Matches an expression of the object group.
    Member(ObjectName),
    /// The opposite of `Eq`.
    Neq(Value),
    /// The opposite of `InRange`.
    NotInRange(Value, Value),
    /// The opposite of `Member`.
    NotMember(ObjectName),
}

/// Why a test does not fit an attribute.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConditionError {
    /// The operator has no meaning for this attribute.
    #[error("{attribute} cannot be tested with {operator}")]
    Operator {
        /// The attribute.
        attribute: Attribute,
        /// The operator's keyword.
        operator: &'static str,
    },
    /// The value is of another kind, or out of range.
    #[error("{value} is not a value of {attribute}")]
    Value {
        /// The attribute.
        attribute: Attribute,
        /// The value, as text.
        value: String,
    },
    /// The range ends before it begins.
    #[error("the range of {attribute} ends before it begins")]
    Range {
        /// The attribute.
        attribute: Attribute,
    },
}

/// One condition of a zone or a rule, or one expression of an object group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Attribute, Test)", into = "(Attribute, Test)")]
pub struct Condition {
    attribute: Attribute,
    test: Test,
}

impl TryFrom<(Attribute, Test)> for Condition {
    type Error = ConditionError;
    fn try_from((attribute, test): (Attribute, Test)) -> Result<Self, Self::Error> {
        Self::new(attribute, test)
    }
}

impl From<Condition> for (Attribute, Test) {
    fn from(condition: Condition) -> Self {
        (condition.attribute, condition.test)
    }
}

impl Condition {
    /// A condition whose test fits its attribute.
    ///
    /// # Errors
    /// [`ConditionError`] when the operator or the value does not fit, or a range is reversed.
    pub fn new(attribute: Attribute, test: Test) -> Result<Self, ConditionError> {
        let field = attribute.field;
        let operator_fits = match &test {
            Test::Contains(_) => field == Field::ZoneName,
            Test::Eq(_) | Test::Neq(_) => true,
            Test::Gt(_)
            | Test::InRange(..)
            | Test::Lt(_)
            | Test::Member(_)
            | Test::NotInRange(..)
            | Test::NotMember(_) => field != Field::ZoneName,
        };
        if !operator_fits {
            return Err(ConditionError::Operator {
                attribute,
                operator: test.operator(),
            });
        }
        for value in test.values() {
            let ordered = !matches!(test, Test::Eq(_) | Test::Neq(_));
            if !value.fits(field) || (ordered && !value.is_single()) {
                return Err(ConditionError::Value {
                    attribute,
                    value: value.text(field),
                });
            }
        }
        if let Test::InRange(from, to) | Test::NotInRange(from, to) = &test
            && from.range() > to.range()
        {
            return Err(ConditionError::Range { attribute });
        }
        Ok(Self { attribute, test })
    }

    /// The attribute tested.
    #[must_use]
    pub const fn attribute(&self) -> Attribute {
        self.attribute
    }

    /// The test.
    #[must_use]
    pub const fn test(&self) -> &Test {
        &self.test
    }

    /// The object group it refers to.
    #[must_use]
    pub const fn group(&self) -> Option<&ObjectName> {
        match &self.test {
            Test::Member(name) | Test::NotMember(name) => Some(name),
            Test::Contains(_)
            | Test::Eq(_)
            | Test::Gt(_)
            | Test::InRange(..)
            | Test::Lt(_)
            | Test::Neq(_)
            | Test::NotInRange(..) => None,
        }
    }

    /// The zone it refers to by its full name.
    #[must_use]
    pub const fn zone(&self) -> Option<&ObjectName> {
        match &self.test {
            Test::Eq(Value::Zone(name)) | Test::Neq(Value::Zone(name)) => Some(name),
            Test::Contains(_)
            | Test::Eq(_)
            | Test::Gt(_)
            | Test::InRange(..)
            | Test::Lt(_)
            | Test::Member(_)
            | Test::Neq(_)
            | Test::NotInRange(..)
            | Test::NotMember(_) => None,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.attribute.field;
        write!(f, "{} {}", self.attribute, self.test.operator())?;
        match &self.test {
            Test::Contains(part) => write!(f, " {part}"),
            Test::Member(name) | Test::NotMember(name) => write!(f, " object-group {name}"),
            Test::Eq(value) | Test::Gt(value) | Test::Lt(value) | Test::Neq(value) => {
                write!(f, " {}", value.text(field))
            }
            Test::InRange(from, to) | Test::NotInRange(from, to) => {
                write!(f, " {} {}", from.text(field), to.text(field))
            }
        }
    }
}

impl Test {
    /// The grammar's keyword.
    #[must_use]
    pub const fn operator(&self) -> &'static str {
        match self {
            Self::Contains(_) => "contains",
            Self::Eq(_) => "eq",
            Self::Gt(_) => "gt",
            Self::InRange(..) => "in-range",
            Self::Lt(_) => "lt",
            Self::Member(_) => "member",
            Self::Neq(_) => "neq",
            Self::NotInRange(..) => "not-in-range",
            Self::NotMember(_) => "not-member",
        }
    }

    fn values(&self) -> Vec<&Value> {
        match self {
            Self::Eq(value) | Self::Gt(value) | Self::Lt(value) | Self::Neq(value) => vec![value],
            Self::InRange(from, to) | Self::NotInRange(from, to) => vec![from, to],
            Self::Contains(_) | Self::Member(_) | Self::NotMember(_) => Vec::new(),
        }
    }
}

/// How the conditions of one rule or zone are joined (`cond-match-criteria:`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum MatchCriteria {
    /// Every condition must hold.
    #[default]
    All,
    /// One condition that holds is enough.
    Any,
}

impl MatchCriteria {
    /// The grammar's keyword.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::All => "match-all",
            Self::Any => "match-any",
        }
    }
}

/// A protocol that an inspector follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InspectedProtocol {
    /// File transfer: opens its data connections.
    Ftp,
    /// Remote shell: opens its error connection.
    Rsh,
    /// Trivial file transfer: opens the answer's port.
    Tftp,
}

impl InspectedProtocol {
    /// The grammar's keyword.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Rsh => "rsh",
            Self::Tftp => "tftp",
        }
    }
}

/// What a matching rule does. A rule's verdict is its first action that is not `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Drops without an answer.
    Drop,
    /// Permits, and has the flow's packets visit the inspector.
    Inspect(InspectedProtocol),
    /// Writes a lookup event; decides nothing.
    Log,
    /// Permits.
    Permit,
    /// Drops and answers TCP with a reset.
    Reset,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Inspect(protocol) => write!(f, "inspect {}", protocol.keyword()),
            Self::Log => f.write_str("log"),
            Self::Permit => f.write_str("permit"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_qualified_and_checked() {
        let name = ObjectName::new("web").expect("valid: a plain name");
        assert_eq!(name.as_str(), "web@root");
        assert!(ObjectName::new("web@root/Tenant").is_ok());
        assert!(ObjectName::new("default/default-rule@root").is_ok());
        for bad in [
            "",
            "@root",
            "a b",
            "web@",
            "web@other",
            "web@root/",
            "x@root@root",
        ] {
            assert!(ObjectName::new(bad).is_err(), "{bad:?}");
        }
        assert!(ObjectName::new(&"x".repeat(33)).is_err());
    }

    #[test]
    fn a_mask_with_holes_is_refused_and_host_bits_are_cleared() {
        let ip = Ipv4Addr::new(10, 9, 1, 2);
        assert_eq!(Value::network(ip, Ipv4Addr::new(255, 0, 255, 0)), None);
        let network = Value::network(ip, Ipv4Addr::new(255, 255, 0, 0)).expect("contiguous");
        assert_eq!(network.range(), Some((0x0a09_0000, 0x0a09_ffff)));
        assert!(Value::network(ip, Ipv4Addr::UNSPECIFIED).is_some());
    }

    #[test]
    fn a_test_must_fit_its_attribute() {
        let port = Attribute::of(Side::Destination, Field::Port);
        let zone = Attribute::of(Side::Source, Field::ZoneName);
        let protocol = Attribute::of(Side::Neutral, Field::Protocol);
        let web = ObjectName::new("web").expect("valid: a plain name");
        assert!(Condition::new(port, Test::Eq(Value::Number(80))).is_ok());
        assert!(Condition::new(port, Test::Eq(Value::Zone(web.clone()))).is_err());
        assert!(Condition::new(protocol, Test::Eq(Value::Number(256))).is_err());
        assert!(Condition::new(zone, Test::Gt(Value::Zone(web.clone()))).is_err());
        assert!(Condition::new(zone, Test::Eq(Value::Zone(web))).is_ok());
        let reversed = Test::InRange(Value::Number(2), Value::Number(1));
        assert_eq!(
            Condition::new(port, reversed),
            Err(ConditionError::Range { attribute: port })
        );
    }
}
