//! Tag filters (`tf`): a subscriber asks for those publications of a channel whose tags match an expression.
//!
//! A client sends a tree of [`FilterNode`]s. [`Filter::new`] checks it against the limits below and prepares it for
//! evaluation, which takes bounded time and no allocation. Semantics are those of Centrifugo: an absent tag differs
//! from every value, and `lt`, `lte`, `gt`, `gte` compare decimal numbers; they never match a value that is not a
//! number.

mod decimal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use self::decimal::{Decimal, DecimalBuf};

/// Deepest nesting of nodes, the root included. Evaluation recurses this deep.
pub(crate) const DEPTH_MAX: usize = 16;

/// Most nodes of one filter, which bounds the work for each publication.
pub(crate) const NODES_MAX: usize = 128;

/// Most entries of all `vals` of one filter. They are searched by bisection.
pub(crate) const VALUES_MAX: usize = 1024;

/// Longest key or value, in bytes.
pub(crate) const STRING_SIZE_MAX: usize = 256;

/// Most bytes of all keys and values of one filter together.
pub(crate) const SIZE_MAX: usize = 16 * 1024;

/// A node of a tag filter as clients send it. Absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct FilterNode {
    /// `and`, `or`, `not`; empty for a leaf, which compares one tag.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub(crate) op: String,
    /// Name of the tag that a leaf looks at.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
    /// Comparison of a leaf: `eq`, `neq`, `in`, `nin`, `ex`, `nex`, `sw`, `ew`, `ct`, `lt`, `lte`, `gt`, `gte`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub(crate) cmp: String,
    /// Value that the tag is compared with; not used by `in`, `nin`, `ex`, `nex`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub(crate) val: String,
    /// Values of `in` and `nin`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) vals: Vec<String>,
    /// Children of `and`, `or`, `not`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<FilterNode>,
}

/// Client libraries may write an absent field as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Tags of a publication, by name.
pub(crate) trait Tags {
    /// Value of the tag with this name.
    fn tag(&self, key: &str) -> Option<&str>;
}

/// The first of two tags with the same name counts.
impl<K: AsRef<str>, V: AsRef<str>> Tags for [(K, V)] {
    fn tag(&self, key: &str) -> Option<&str> {
        let found = self.iter().find(|(name, _)| name.as_ref() == key);
        found.map(|(_, value)| value.as_ref())
    }
}

impl<V: AsRef<str>> Tags for BTreeMap<String, V> {
    fn tag(&self, key: &str) -> Option<&str> {
        self.get(key).map(AsRef::as_ref)
    }
}

impl<V: AsRef<str>> Tags for HashMap<String, V> {
    fn tag(&self, key: &str) -> Option<&str> {
        self.get(key).map(AsRef::as_ref)
    }
}

/// A validated tag filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    root: Node,
}

#[derive(Clone, Debug)]
enum Node {
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Not(Box<Node>),
    Leaf { key: Box<str>, test: Test },
}

/// Comparison of one tag.
#[derive(Clone, Debug)]
enum Test {
    Equal(Box<str>),
    NotEqual(Box<str>),
    /// Sorted, for bisection.
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    NotExists,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// `None` if the value of the filter is not a number: such a test never matches.
    Number(Order, Option<DecimalBuf>),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// Validates a filter and prepares it for evaluation.
    ///
    /// # Errors
    /// The first rule that the filter breaks: an unknown operator or comparison, a comparison with missing or
    /// superfluous operands, a node with the wrong number of children, or a limit of this module.
    pub(crate) fn new(node: &FilterNode) -> Result<Self, FilterError> {
        let root = Budget::default().node(node, 1)?;
        Ok(Self { root })
    }

    /// The filter that matches what both match.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let root = Node::And([self.root.clone(), other.root.clone()].into());
        Self { root }
    }

    /// Whether a publication with these tags matches.
    pub(crate) fn matches<T: Tags + ?Sized>(&self, tags: &T) -> bool {
        self.root.matches(tags)
    }
}

impl Node {
    fn matches<T: Tags + ?Sized>(&self, tags: &T) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(tags)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(tags)),
            Self::Not(node) => !node.matches(tags),
            Self::Leaf { key, test } => test.matches(tags.tag(key)),
        }
    }
}

impl Test {
    fn matches(&self, tag: Option<&str>) -> bool {
        match self {
            Self::Equal(value) => tag == Some(value),
            Self::NotEqual(value) => tag != Some(value),
            Self::In(values) => is_among(values, tag),
            Self::NotIn(values) => !is_among(values, tag),
            Self::Exists => tag.is_some(),
            Self::NotExists => tag.is_none(),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::Number(order, value) => {
                let (Some(tag), Some(value)) = (tag.and_then(Decimal::parse), value) else {
                    return false;
                };
                let ordering = tag.cmp(&value.as_decimal());
                match order {
                    Order::Less => ordering.is_lt(),
                    Order::LessOrEqual => ordering.is_le(),
                    Order::Greater => ordering.is_gt(),
                    Order::GreaterOrEqual => ordering.is_ge(),
                }
            }
        }
    }
}

/// Centrifugo looks for an absent tag as if it were empty: `in` with an empty string among its values matches it.
fn is_among(sorted: &[Box<str>], tag: Option<&str>) -> bool {
    let tag = tag.unwrap_or_default();
    sorted.binary_search_by(|value| (**value).cmp(tag)).is_ok()
}

/// Counts what one filter has used of the limits so far.
#[derive(Default)]
struct Budget {
    nodes: usize,
    values: usize,
    size: usize,
}

impl Budget {
    fn node(&mut self, node: &FilterNode, depth: usize) -> Result<Node, FilterError> {
        if depth > DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(FilterError::TooManyNodes);
        }
        match node.op.as_str() {
            "" => self.leaf(node),
            "and" => Ok(Node::And(self.children(node, depth)?)),
            "or" => Ok(Node::Or(self.children(node, depth)?)),
            "not" => match node.nodes.as_slice() {
                [child] => Ok(Node::Not(Box::new(self.node(child, depth + 1)?))),
                _ => Err(FilterError::NotTakesOneNode),
            },
            _ => Err(FilterError::UnknownOperator),
        }
    }

    fn children(&mut self, node: &FilterNode, depth: usize) -> Result<Box<[Node]>, FilterError> {
        if node.nodes.is_empty() {
            return Err(FilterError::NoNodes);
        }
        node.nodes.iter().map(|child| self.node(child, depth + 1)).collect()
    }

    fn leaf(&mut self, node: &FilterNode) -> Result<Node, FilterError> {
        let test = match node.cmp.as_str() {
            "eq" => Test::Equal(self.value(node)?),
            "neq" => Test::NotEqual(self.value(node)?),
            "in" => Test::In(self.values(node)?),
            "nin" => Test::NotIn(self.values(node)?),
            "ex" => self.no_value(node, Test::Exists)?,
            "nex" => self.no_value(node, Test::NotExists)?,
            "sw" => Test::StartsWith(self.value(node)?),
            "ew" => Test::EndsWith(self.value(node)?),
            "ct" => Test::Contains(self.value(node)?),
            "lt" => self.number(node, Order::Less)?,
            "lte" => self.number(node, Order::LessOrEqual)?,
            "gt" => self.number(node, Order::Greater)?,
            "gte" => self.number(node, Order::GreaterOrEqual)?,
            "" => return Err(FilterError::NoComparison),
            _ => return Err(FilterError::UnknownComparison),
        };
        // Centrifugo takes `ex` and `nex` without a key.
        if node.key.is_empty() && !matches!(test, Test::Exists | Test::NotExists) {
            return Err(FilterError::NoKey);
        }
        let key = self.string(&node.key)?;
        Ok(Node::Leaf { key, test })
    }

    fn value(&mut self, node: &FilterNode) -> Result<Box<str>, FilterError> {
        if node.val.is_empty() {
            return Err(FilterError::NoValue);
        }
        if !node.vals.is_empty() {
            return Err(FilterError::UnusedValues);
        }
        self.string(&node.val)
    }

    fn values(&mut self, node: &FilterNode) -> Result<Box<[Box<str>]>, FilterError> {
        if node.vals.is_empty() {
            return Err(FilterError::NoValues);
        }
        if !node.val.is_empty() {
            return Err(FilterError::UnusedValue);
        }
        self.values += node.vals.len();
        if self.values > VALUES_MAX {
            return Err(FilterError::TooManyValues);
        }
        let mut values = (node.vals.iter().map(|value| self.string(value))).collect::<Result<Box<[_]>, _>>()?;
        values.sort_unstable();
        Ok(values)
    }

    fn no_value(&mut self, node: &FilterNode, test: Test) -> Result<Test, FilterError> {
        if !node.val.is_empty() {
            return Err(FilterError::UnusedValue);
        }
        if !node.vals.is_empty() {
            return Err(FilterError::UnusedValues);
        }
        Ok(test)
    }

    fn number(&mut self, node: &FilterNode, order: Order) -> Result<Test, FilterError> {
        let value = self.value(node)?;
        Ok(Test::Number(order, DecimalBuf::parse(&value)))
    }

    fn string(&mut self, text: &str) -> Result<Box<str>, FilterError> {
        if text.len() > STRING_SIZE_MAX {
            return Err(FilterError::StringTooLong);
        }
        self.size += text.len();
        if self.size > SIZE_MAX {
            return Err(FilterError::TooLarge);
        }
        Ok(text.into())
    }
}

/// A rule that a tag filter breaks. The subscription is answered with error 107 (bad request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterError {
    /// `op` is not `and`, `or`, `not` or empty.
    UnknownOperator,
    /// `cmp` of a leaf is not a comparison.
    UnknownComparison,
    /// A leaf without `cmp`.
    NoComparison,
    /// A leaf without `key`.
    NoKey,
    /// A comparison that needs `val` has none.
    NoValue,
    /// `in` or `nin` without `vals`.
    NoValues,
    /// `val` beside a comparison that does not use it.
    UnusedValue,
    /// `vals` beside a comparison that does not use them.
    UnusedValues,
    /// `and` or `or` without children.
    NoNodes,
    /// `not` with no child or more than one.
    NotTakesOneNode,
    /// More than [`DEPTH_MAX`] levels.
    TooDeep,
    /// More than [`NODES_MAX`] nodes.
    TooManyNodes,
    /// More than [`VALUES_MAX`] entries in all `vals`.
    TooManyValues,
    /// A key or value of more than [`STRING_SIZE_MAX`] bytes.
    StringTooLong,
    /// Keys and values of more than [`SIZE_MAX`] bytes together.
    TooLarge,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOperator => f.write_str("tag filter: unknown op; use and, or, not, or none for a comparison"),
            Self::UnknownComparison => {
                f.write_str("tag filter: unknown cmp; use eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt or gte")
            }
            Self::NoComparison => f.write_str("tag filter: a comparison needs cmp"),
            Self::NoKey => f.write_str("tag filter: a comparison needs key"),
            Self::NoValue => f.write_str("tag filter: this cmp needs val"),
            Self::NoValues => f.write_str("tag filter: in and nin need vals"),
            Self::UnusedValue => f.write_str("tag filter: this cmp takes no val"),
            Self::UnusedValues => f.write_str("tag filter: this cmp takes no vals"),
            Self::NoNodes => f.write_str("tag filter: and and or need nodes"),
            Self::NotTakesOneNode => f.write_str("tag filter: not needs exactly one node"),
            Self::TooDeep => write!(f, "tag filter: nested deeper than {DEPTH_MAX} levels"),
            Self::TooManyNodes => write!(f, "tag filter: more than {NODES_MAX} nodes"),
            Self::TooManyValues => write!(f, "tag filter: more than {VALUES_MAX} vals"),
            Self::StringTooLong => write!(f, "tag filter: a key or value is longer than {STRING_SIZE_MAX} bytes"),
            Self::TooLarge => write!(f, "tag filter: keys and values take more than {SIZE_MAX} bytes"),
        }
    }
}

impl std::error::Error for FilterError {}
