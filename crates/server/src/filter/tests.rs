//! Filters as clients send them, against tags.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(filter: Value) -> FilterNode {
    serde_json::from_value(filter).unwrap()
}

#[track_caller]
fn check(filter: Value, tags: &[(&str, &str)], expect: bool) {
    let filter = Filter::new(&parse(filter)).unwrap();
    assert_eq!(filter.matches(tags), expect);
    let map: BTreeMap<String, &str> = tags.iter().map(|&(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(filter.matches(&map), expect);
    let map: HashMap<String, String> = tags.iter().map(|&(key, value)| (key.into(), value.into())).collect();
    assert_eq!(filter.matches(&map), expect);
}

#[track_caller]
fn refuse(filter: Value, expect: FilterError) {
    assert_eq!(Filter::new(&parse(filter)).unwrap_err(), expect);
}

#[test]
fn comparisons_of_text() {
    let tags = &[("ticker", "BTC-USD"), ("empty", "")];
    for (cmp, val, expect) in [
        ("eq", "BTC-USD", true),
        ("eq", "BTC", false),
        ("neq", "BTC-USD", false),
        ("neq", "BTC", true),
        ("sw", "BTC", true),
        ("sw", "USD", false),
        ("ew", "USD", true),
        ("ew", "BTC", false),
        ("ct", "C-U", true),
        ("ct", "EUR", false),
    ] {
        check(json!({"key": "ticker", "cmp": cmp, "val": val}), tags, expect);
    }
    check(
        json!({"key": "ticker", "cmp": "in", "vals": ["x", "BTC-USD", "a"]}),
        tags,
        true,
    );
    check(json!({"key": "ticker", "cmp": "in", "vals": ["x", "y"]}), tags, false);
    check(
        json!({"key": "ticker", "cmp": "nin", "vals": ["x", "BTC-USD", "a"]}),
        tags,
        false,
    );
    check(json!({"key": "ticker", "cmp": "nin", "vals": ["x"]}), tags, true);
    check(json!({"key": "ticker", "cmp": "ex"}), tags, true);
    check(json!({"key": "empty", "cmp": "ex"}), tags, true);
    check(json!({"key": "ticker", "cmp": "nex"}), tags, false);
}

#[test]
fn an_absent_tag_differs_from_every_value() {
    for (cmp, expect) in [
        ("eq", false),
        ("neq", true),
        ("sw", false),
        ("ew", false),
        ("ct", false),
        ("lt", false),
        ("lte", false),
        ("gt", false),
        ("gte", false),
    ] {
        check(
            json!({"key": "absent", "cmp": cmp, "val": "1"}),
            &[("other", "1")],
            expect,
        );
    }
    check(json!({"key": "absent", "cmp": "in", "vals": ["1"]}), &[], false);
    check(json!({"key": "absent", "cmp": "nin", "vals": ["1"]}), &[], true);
    check(json!({"key": "absent", "cmp": "ex"}), &[], false);
    check(json!({"key": "absent", "cmp": "nex"}), &[], true);
    // As Centrifugo does: an absent tag is looked for as if it were empty.
    check(json!({"key": "absent", "cmp": "in", "vals": ["", "1"]}), &[], true);
    check(json!({"key": "absent", "cmp": "nin", "vals": ["", "1"]}), &[], false);
}

#[test]
fn numbers_are_compared_as_decimals() {
    for (value, [lt, lte, gt, gte]) in [
        ("41.99999999", [true, true, false, false]),
        ("42", [false, true, false, true]),
        ("42.00", [false, true, false, true]),
        ("+042", [false, true, false, true]),
        ("42.00000001", [false, false, true, true]),
        ("100", [false, false, true, true]),
        ("-100", [true, true, false, false]),
        ("abc", [false; 4]),
        ("", [false; 4]),
        ("1e3", [false; 4]),
    ] {
        for (cmp, expect) in [("lt", lt), ("lte", lte), ("gt", gt), ("gte", gte)] {
            check(json!({"key": "n", "cmp": cmp, "val": "42"}), &[("n", value)], expect);
            // A filter whose own value is no number is taken, and matches nothing.
            check(json!({"key": "n", "cmp": cmp, "val": "many"}), &[("n", value)], false);
        }
    }
}

#[test]
fn operators_combine_nodes() {
    let filter = json!({"op": "or", "nodes": [
        {"op": "and", "nodes": [
            {"key": "env", "cmp": "eq", "val": "prod"},
            {"key": "region", "cmp": "in", "vals": ["us", "eu"]},
        ]},
        {"op": "and", "nodes": [
            {"key": "tier", "cmp": "neq", "val": "bronze"},
            {"op": "not", "nodes": [{"key": "debug", "cmp": "ex"}]},
        ]},
    ]});
    check(
        filter.clone(),
        &[("env", "prod"), ("region", "us"), ("debug", "1")],
        true,
    );
    check(
        filter.clone(),
        &[("env", "prod"), ("region", "asia"), ("debug", "1")],
        false,
    );
    check(filter.clone(), &[("env", "staging"), ("tier", "gold")], true);
    check(filter, &[("env", "staging"), ("tier", "bronze")], false);
}

#[test]
fn malformed_filters_are_refused() {
    let leaf = json!({"key": "a", "cmp": "ex"});
    refuse(json!({}), FilterError::NoComparison);
    refuse(json!({"op": "xor", "nodes": [leaf]}), FilterError::UnknownOperator);
    refuse(json!({"op": "AND", "nodes": [leaf]}), FilterError::UnknownOperator);
    refuse(
        json!({"key": "a", "cmp": "like", "val": "x"}),
        FilterError::UnknownComparison,
    );
    refuse(json!({"key": "a", "cmp": "eq"}), FilterError::NoValue);
    refuse(json!({"key": "a", "cmp": "gt"}), FilterError::NoValue);
    refuse(json!({"cmp": "eq", "val": "x"}), FilterError::NoKey);
    refuse(json!({"cmp": "in", "vals": ["x"]}), FilterError::NoKey);
    refuse(
        json!({"key": "a", "cmp": "eq", "val": "x", "vals": ["y"]}),
        FilterError::UnusedValues,
    );
    refuse(json!({"key": "a", "cmp": "in"}), FilterError::NoValues);
    refuse(
        json!({"key": "a", "cmp": "nin", "val": "x", "vals": ["y"]}),
        FilterError::UnusedValue,
    );
    refuse(json!({"key": "a", "cmp": "ex", "val": "x"}), FilterError::UnusedValue);
    refuse(
        json!({"key": "a", "cmp": "nex", "vals": ["x"]}),
        FilterError::UnusedValues,
    );
    refuse(json!({"op": "and"}), FilterError::NoNodes);
    refuse(json!({"op": "or", "nodes": []}), FilterError::NoNodes);
    refuse(json!({"op": "not"}), FilterError::NotTakesOneNode);
    refuse(
        json!({"op": "not", "nodes": [leaf, leaf]}),
        FilterError::NotTakesOneNode,
    );
    // A fault below is found too.
    refuse(
        json!({"op": "or", "nodes": [leaf, {"op": "not", "nodes": [{}]}]}),
        FilterError::NoComparison,
    );
    // Centrifugo takes `ex` and `nex` without a key.
    check(json!({"cmp": "nex"}), &[("a", "1")], true);
}

#[test]
fn the_limits_are_exact() {
    let leaf = || parse(json!({"key": "a", "cmp": "ex"}));
    let nested = |depth: usize| {
        (1..depth).fold(leaf(), |node, _| FilterNode {
            op: "not".into(),
            nodes: vec![node],
            ..FilterNode::default()
        })
    };
    assert!(Filter::new(&nested(DEPTH_MAX)).is_ok());
    assert_eq!(Filter::new(&nested(DEPTH_MAX + 1)).unwrap_err(), FilterError::TooDeep);
    // Far deeper than the stack would bear if it were followed.
    assert_eq!(Filter::new(&nested(2_000)).unwrap_err(), FilterError::TooDeep);

    let wide = |nodes: usize| FilterNode {
        op: "or".into(),
        nodes: vec![leaf(); nodes - 1],
        ..FilterNode::default()
    };
    assert!(Filter::new(&wide(NODES_MAX)).is_ok());
    assert_eq!(
        Filter::new(&wide(NODES_MAX + 1)).unwrap_err(),
        FilterError::TooManyNodes
    );

    let among = |count: usize| parse(json!({"key": "a", "cmp": "in", "vals": vec!["x"; count]}));
    assert!(Filter::new(&among(VALUES_MAX)).is_ok());
    assert_eq!(
        Filter::new(&among(VALUES_MAX + 1)).unwrap_err(),
        FilterError::TooManyValues
    );

    let long = |len: usize| parse(json!({"key": "a", "cmp": "eq", "val": "x".repeat(len)}));
    assert!(Filter::new(&long(STRING_SIZE_MAX)).is_ok());
    assert_eq!(
        Filter::new(&long(STRING_SIZE_MAX + 1)).unwrap_err(),
        FilterError::StringTooLong
    );
    refuse(json!({"key": "k".repeat(257), "cmp": "ex"}), FilterError::StringTooLong);

    let full = |count: usize| parse(json!({"key": "a", "cmp": "in", "vals": vec!["x".repeat(STRING_SIZE_MAX); count]}));
    assert!(Filter::new(&full(SIZE_MAX / STRING_SIZE_MAX - 1)).is_ok());
    assert_eq!(
        Filter::new(&full(SIZE_MAX / STRING_SIZE_MAX)).unwrap_err(),
        FilterError::TooLarge
    );
}

#[test]
fn null_is_an_absent_field() {
    let node: FilterNode =
        serde_json::from_str(r#"{"op":null,"key":"a","cmp":"eq","val":"1","vals":null,"nodes":null}"#).unwrap();
    assert_eq!(node, parse(json!({"key": "a", "cmp": "eq", "val": "1"})));
    assert!(serde_json::from_str::<FilterNode>(r#"{"op":1}"#).is_err());
    assert!(serde_json::from_str::<FilterNode>(r#"{"vals":[1]}"#).is_err());
}

#[test]
fn errors_do_not_repeat_what_the_client_sent() {
    let node = parse(json!({"key": "a", "cmp": "<script>", "val": "x"}));
    assert!(!Filter::new(&node).unwrap_err().to_string().contains("script"));
}

/// Evaluates a filter straight from its definition.
fn reference(node: &FilterNode, tags: &[(String, String)]) -> bool {
    let tag = tags
        .iter()
        .find(|(key, _)| *key == node.key)
        .map(|(_, value)| value.as_str());
    let number = |text: &str| text.parse::<i32>().ok();
    let both = || Some((number(tag?)?, number(&node.val)?));
    match (node.op.as_str(), node.cmp.as_str()) {
        ("and", _) => node.nodes.iter().all(|node| reference(node, tags)),
        ("or", _) => node.nodes.iter().any(|node| reference(node, tags)),
        ("not", _) => !reference(&node.nodes[0], tags),
        (_, "eq") => tag == Some(node.val.as_str()),
        (_, "neq") => tag != Some(node.val.as_str()),
        (_, "in") => node.vals.iter().any(|value| value == tag.unwrap_or("")),
        (_, "nin") => !node.vals.iter().any(|value| value == tag.unwrap_or("")),
        (_, "ex") => tag.is_some(),
        (_, "nex") => tag.is_none(),
        (_, "sw") => tag.is_some_and(|tag| tag.starts_with(&node.val)),
        (_, "ew") => tag.is_some_and(|tag| tag.ends_with(&node.val)),
        (_, "ct") => tag.is_some_and(|tag| tag.contains(&node.val)),
        (_, "lt") => both().is_some_and(|(tag, value)| tag < value),
        (_, "lte") => both().is_some_and(|(tag, value)| tag <= value),
        (_, "gt") => both().is_some_and(|(tag, value)| tag > value),
        (_, "gte") => both().is_some_and(|(tag, value)| tag >= value),
        other => unreachable!("{other:?}"),
    }
}

fn leaves() -> impl Strategy<Value = FilterNode> {
    let key = || "[abc]";
    let value = || "-?[0-9]{1,2}|[xy]{1,2}";
    let with_value = prop::sample::select(vec!["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]);
    let with_value = (key(), with_value, value()).prop_map(|(key, cmp, val)| FilterNode {
        key,
        cmp: cmp.into(),
        val,
        ..FilterNode::default()
    });
    let with_values = (
        key(),
        prop::sample::select(vec!["in", "nin"]),
        prop::collection::vec(value(), 1..5),
    );
    let with_values = with_values.prop_map(|(key, cmp, vals)| FilterNode {
        key,
        cmp: cmp.into(),
        vals,
        ..FilterNode::default()
    });
    let bare = (key(), prop::sample::select(vec!["ex", "nex"])).prop_map(|(key, cmp)| FilterNode {
        key,
        cmp: cmp.into(),
        ..FilterNode::default()
    });
    prop_oneof![with_value, with_values, bare]
}

fn filters() -> impl Strategy<Value = FilterNode> {
    let node = |op: &'static str| {
        move |nodes: Vec<FilterNode>| FilterNode {
            op: op.into(),
            nodes,
            ..FilterNode::default()
        }
    };
    leaves().prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(node("and")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(node("or")),
            inner.prop_map(move |child| node("not")(vec![child])),
        ]
    })
}

proptest! {
    #[test]
    fn valid_filters_agree_with_the_definition(
        filter in filters(),
        tags in prop::collection::vec(("[abc]", "-?[0-9]{1,2}|[xy]{0,2}"), 0..4),
    ) {
        let expect = reference(&filter, &tags);
        prop_assert_eq!(Filter::new(&filter).unwrap().matches(tags.as_slice()), expect);
    }

    #[test]
    fn any_node_is_taken_or_refused(
        op in "and|or|not||x", cmp in "eq|in|ex|gt||x", key in ".{0,3}", val in ".{0,3}",
        vals in prop::collection::vec(".{0,3}", 0..3), children in prop::collection::vec(leaves(), 0..3),
    ) {
        let node = FilterNode { op, cmp, key, val, vals, nodes: children };
        if let Ok(filter) = Filter::new(&node) {
            filter.matches(&[("a", "1")][..]);
        }
        let json = serde_json::to_string(&node).unwrap();
        prop_assert_eq!(serde_json::from_str::<FilterNode>(&json).unwrap(), node);
    }
}
