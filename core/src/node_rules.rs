//! Which nodes a pod may be put on by what it says itself: its nodeSelector, its required node
//! affinity and its tolerations, as kube-scheduler reads them. What else keeps a pod from a node
//! (its requests, other pods, its volumes) changes from one moment to the next.

use std::collections::BTreeMap;

/// The only field of a node that affinity can name.
const NAME: &str = "metadata.name";

/// What a pod asks of the node that it is put on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeRules {
    /// Labels that the node must have.
    pub labels: BTreeMap<String, String>,
    /// Of these one must hold; `None` without a required node affinity.
    pub terms: Option<Vec<Term>>,
    /// Taints that are no hindrance.
    pub tolerations: Vec<Toleration>,
}

/// One term of a required node affinity: all of its rules must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// About the node's labels.
    pub labels: Vec<Rule>,
    /// About its fields.
    pub fields: Vec<Rule>,
}

/// What must be so about one label or field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`; nothing holds by another one.
    pub operator: String,
    /// What it is held to.
    pub values: Vec<String>,
}

/// A taint that is no hindrance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// Of the taint; any when empty.
    pub key: String,
    /// `Exists`, or `Equal`, which is meant by nothing, too.
    pub operator: String,
    /// Of the taint, for `Equal`.
    pub value: String,
    /// Of the taint; any when empty.
    pub effect: String,
}

/// Keeps pods from a node that do not tolerate it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// What it is about.
    pub key: String,
    /// More about it; may be empty.
    pub value: String,
    /// `NoSchedule`, `NoExecute`, or what is only a wish.
    pub effect: String,
}

impl NodeRules {
    /// Whether they hold for the node of this name.
    pub fn admit(&self, name: &str, labels: &BTreeMap<String, String>, taints: &[Taint]) -> bool {
        let tolerates = |taint: &Taint| self.tolerations.iter().any(|toleration| toleration.covers(taint));
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.holds(name, labels)))
            && taints.iter().all(|taint| taint.is_a_wish() || tolerates(taint))
    }

    /// The node that they name, as those of a DaemonSet's pods do.
    pub fn only_node(&self) -> Option<&str> {
        let [term] = self.terms.as_deref()? else { return None };
        let named = term.fields.iter().find(|rule| rule.key == NAME && rule.operator == "In")?;
        match named.values.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }
}

impl Term {
    fn holds(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let is_empty = self.labels.is_empty() && self.fields.is_empty();
        let field = |key: &str| (key == NAME).then_some(name);
        !is_empty
            && self.labels.iter().all(|rule| rule.holds(labels.get(&rule.key).map(String::as_str)))
            && self.fields.iter().all(|rule| rule.holds(field(&rule.key)))
    }
}

impl Rule {
    fn holds(&self, found: Option<&str>) -> bool {
        let is_named = |found: &str| self.values.iter().any(|value| value == found);
        match (self.operator.as_str(), found) {
            ("In", Some(found)) => is_named(found),
            ("NotIn", found) => !found.is_some_and(is_named),
            ("Exists", found) => found.is_some(),
            ("DoesNotExist", found) => found.is_none(),
            ("Gt", Some(found)) => self.number().zip(number(found)).is_some_and(|(than, it)| it > than),
            ("Lt", Some(found)) => self.number().zip(number(found)).is_some_and(|(than, it)| it < than),
            _ => false,
        }
    }

    fn number(&self) -> Option<i64> {
        match self.values.as_slice() {
            [value] => number(value),
            _ => None,
        }
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

impl Taint {
    /// Whether pods are put there all the same when there is no other place.
    fn is_a_wish(&self) -> bool {
        !matches!(self.effect.as_str(), "NoSchedule" | "NoExecute")
    }
}

impl Toleration {
    fn covers(&self, taint: &Taint) -> bool {
        let value = match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
            _ => false,
        };
        value
            && (self.key.is_empty() || self.key == taint.key)
            && (self.effect.is_empty() || self.effect == taint.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn rule(key: &str, operator: &str, values: &[&str]) -> Rule {
        let values = values.iter().map(ToString::to_string).collect();
        Rule { key: key.into(), operator: operator.into(), values }
    }

    fn affinity(terms: &[(&[Rule], &[Rule])]) -> NodeRules {
        let term =
            |(labels, fields): &(&[Rule], &[Rule])| Term { labels: labels.to_vec(), fields: fields.to_vec() };
        NodeRules { terms: Some(terms.iter().map(term).collect()), ..NodeRules::default() }
    }

    #[test]
    fn rules_hold_as_kubernetes_has_them() {
        let found = labels(&[("gpu", "a100"), ("cores", "64"), ("zone", "")]);
        for (key, operator, values, holds) in [
            ("gpu", "In", &["h100", "a100"][..], true),
            ("gpu", "In", &["h100"], false),
            ("tpu", "In", &["v5"], false),
            ("gpu", "NotIn", &["a100"], false),
            ("tpu", "NotIn", &["v5"], true),
            ("zone", "Exists", &[], true),
            ("tpu", "Exists", &[], false),
            ("tpu", "DoesNotExist", &[], true),
            ("gpu", "DoesNotExist", &[], false),
            ("cores", "Gt", &["63"], true),
            ("cores", "Gt", &["64"], false),
            ("cores", "Lt", &["65"], true),
            ("gpu", "Gt", &["1"], false),
            ("tpu", "Lt", &["1"], false),
            ("cores", "Gt", &["1", "2"], false),
            ("gpu", "Like", &["a100"], false),
        ] {
            let rules = affinity(&[(&[rule(key, operator, values)], &[])]);
            assert_eq!(rules.admit("n", &found, &[]), holds, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn one_term_is_enough_and_all_of_its_rules_must_hold() {
        let found = labels(&[("gpu", "a100"), ("zone", "x")]);
        let both = [rule("gpu", "Exists", &[]), rule("zone", "In", &["y"])];
        let (gpu, other) = both.split_at(1);
        assert!(!affinity(&[(&both, &[])]).admit("n", &found, &[]));
        assert!(affinity(&[(other, &[]), (gpu, &[])]).admit("n", &found, &[]));
        assert!(!affinity(&[(&[], &[])]).admit("n", &found, &[]), "an empty term names no node");
        assert!(!affinity(&[]).admit("n", &found, &[]));
        assert!(NodeRules::default().admit("n", &found, &[]));
        let selector = NodeRules { labels: labels(&[("zone", "y")]), ..affinity(&[(gpu, &[])]) };
        assert!(!selector.admit("n", &found, &[]), "both must hold");
    }

    #[test]
    fn a_node_is_named_by_its_field() {
        let named = affinity(&[(&[], &[rule(NAME, "In", &["a"])])]);
        assert!(named.admit("a", &labels(&[]), &[]) && !named.admit("b", &labels(&[]), &[]));
        assert_eq!(named.only_node(), Some("a"));
        assert_eq!(affinity(&[(&[], &[rule(NAME, "NotIn", &["a"])])]).only_node(), None);
        assert_eq!(NodeRules::default().only_node(), None);
    }

    #[test]
    fn taints_keep_pods_away_that_do_not_tolerate_them() {
        let taint = |effect: &str| Taint { key: "gpu".into(), value: "yes".into(), effect: effect.into() };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| Toleration {
            key: key.into(),
            operator: operator.into(),
            value: value.into(),
            effect: effect.into(),
        };
        let admits = |tolerations: Vec<Toleration>, taint: Taint| {
            NodeRules { tolerations, ..NodeRules::default() }.admit("n", &BTreeMap::new(), &[taint])
        };
        assert!(!admits(vec![], taint("NoSchedule")) && !admits(vec![], taint("NoExecute")));
        assert!(admits(vec![], taint("PreferNoSchedule")));
        for (tolerated, by) in [
            (true, toleration("gpu", "", "yes", "")),
            (true, toleration("gpu", "Equal", "yes", "NoSchedule")),
            (true, toleration("gpu", "Exists", "", "")),
            (true, toleration("", "Exists", "", "")),
            (false, toleration("gpu", "Equal", "no", "")),
            (false, toleration("gpu", "Exists", "", "NoExecute")),
            (false, toleration("tpu", "Exists", "", "")),
            (false, toleration("", "Equal", "yes", "")),
        ] {
            assert_eq!(admits(vec![by.clone()], taint("NoSchedule")), tolerated, "{by:?}");
        }
    }
}
