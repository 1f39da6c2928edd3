//! What a token allows, and what a person's role comes to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One thing that a caller may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To look up and to read: the list, its entries, peers, members, reports.
    Lookup,
    /// To say what our company thinks of something.
    Submit,
    /// To work off the queue, certify, vote, and open incidents.
    Review,
    /// To read `/metrics`.
    Metrics,
    /// Everything, and what concerns the node itself: logs, charter, tokens, the audit trail.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Lookup, Self::Submit, Self::Review, Self::Metrics, Self::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Submit => "submit",
            Self::Review => "review",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("there is no scope {text:?}, expected one of {}", known()))
    }
}

/// Some scopes. Admin has all others in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Scopes(u8);

impl Scopes {
    /// Exactly these.
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | scope.bit()))
    }

    /// Whether they allow it.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// No scope at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// By name, as they were given.
    pub fn names(self) -> Vec<String> {
        Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0).map(|scope| scope.name().to_owned()).collect()
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        scopes.names()
    }
}

impl TryFrom<Vec<String>> for Scopes {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let scopes = names.iter().map(|name| name.parse()).collect::<Result<Vec<Scope>, _>>()?;
        Ok(Self::of(&scopes))
    }
}

/// What a person is to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks up and reads.
    Viewer,
    /// Also speaks for the company.
    Reviewer,
    /// Also runs the node.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Reviewer, Self::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Reviewer => "reviewer",
            Self::Admin => "admin",
        }
    }

    /// What it may.
    pub fn scopes(self) -> Scopes {
        match self {
            Self::Viewer => Scopes::of(&[Scope::Lookup, Scope::Metrics]),
            Self::Reviewer => Scopes::of(&[Scope::Lookup, Scope::Submit, Scope::Review, Scope::Metrics]),
            Self::Admin => Scopes::of(&Scope::ALL),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("there is no role {text:?}, expected one of {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_one_before_may_and_more() {
        let allowed = |role: Role| Scope::ALL.map(|scope| role.scopes().allow(scope));
        assert_eq!(allowed(Role::Viewer), [true, false, false, true, false]);
        assert_eq!(allowed(Role::Reviewer), [true, true, true, true, false]);
        assert_eq!(allowed(Role::Admin), [true; 5]);
    }

    #[test]
    fn admin_has_all_others_in_it_and_nothing_else_has() {
        for scope in Scope::ALL {
            let alone = Scopes::of(&[scope]);
            for other in Scope::ALL {
                assert_eq!(alone.allow(other), scope == other || scope == Scope::Admin, "{scope} {other}");
            }
        }
        assert!(Scopes::default().is_empty() && !Scopes::default().allow(Scope::Metrics));
    }

    #[test]
    fn names_come_back_and_unknown_ones_are_refused() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        let scopes = Scopes::of(&[Scope::Submit, Scope::Lookup]);
        assert_eq!(Scopes::try_from(scopes.names()), Ok(scopes));
        assert!("root".parse::<Role>().is_err() && Scopes::try_from(vec!["everything".to_owned()]).is_err());
    }
}
