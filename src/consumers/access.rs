//! Which groups consumers may lease from, and with which bearer tokens. Replaced as a whole by a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use spillq_storage::GroupId;
use subtle::ConstantTimeEq;

use crate::processor::Pace;
use crate::queue::GroupSettings;
use crate::secret::Secret;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// Who may open the data dir: no token is needed.
    Owner,
    /// Somebody on a socket for consumers, perhaps with a bearer token.
    Bearer(Option<&'a str>),
}

/// What consumers may do.
#[derive(Clone, Debug, Default)]
pub struct Access {
    groups: BTreeMap<String, Open>,
    /// The bearer token of groups without another one.
    token: Option<Token>,
}

/// One group.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: GroupId,
    pub(super) settings: Arc<GroupSettings>,
    /// A `[[processor]]` gets its batches: consumers do not.
    pub(super) has_processor: bool,
    pub(super) pace: Option<Pace>,
    /// The configuration names it. Others, which only the store has, are open to the owner alone: their token is not known.
    is_configured: bool,
    token: Option<Token>,
}

/// A bearer token. Never shown.
#[derive(Clone)]
struct Token(Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a request is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has no bearer token, or a wrong one.
    Token,
    /// There is no such group.
    NoGroup,
}

impl Access {
    /// Access to these groups. `has_processor` tells which of them a processor serves, `is_configured` which the configuration
    /// names.
    ///
    /// # Errors
    /// The first secret that cannot be read.
    pub fn new(
        groups: &[(GroupId, Arc<GroupSettings>)],
        token: Option<&Secret>,
        has_processor: impl Fn(&str) -> bool,
        is_configured: impl Fn(&str) -> bool,
    ) -> Result<Access, String> {
        let read = |secret: &Secret| Ok::<_, String>(Token(secret.read()?.into()));
        let open = |(id, settings): &(GroupId, Arc<GroupSettings>)| {
            let token = settings.token.as_ref().map(read).transpose()?;
            let (has_processor, pace) = (has_processor(&settings.name), settings.rate.map(Pace::new));
            let is_configured = is_configured(&settings.name);
            let open =
                Open { id: *id, settings: Arc::clone(settings), has_processor, pace, is_configured, token };
            Ok::<_, String>((settings.name.clone(), open))
        };
        Ok(Access {
            groups: groups.iter().map(open).collect::<Result<_, _>>()?,
            token: token.map(read).transpose()?,
        })
    }

    /// The same for other groups of the store: those that are new are open to the owner alone.
    pub(super) fn with_groups(&self, groups: &[(GroupId, Arc<GroupSettings>)]) -> Access {
        let open = groups.iter().map(|(id, settings)| {
            let new = || Open {
                id: *id,
                settings: Arc::clone(settings),
                has_processor: false,
                pace: None,
                is_configured: false,
                token: None,
            };
            let known = self.groups.get(&settings.name).cloned().unwrap_or_else(new);
            (settings.name.clone(), Open { id: *id, settings: Arc::clone(settings), ..known })
        });
        Access { groups: open.collect(), token: self.token.clone() }
    }

    /// Whether all secrets of these groups can be read.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(groups: &[GroupSettings], token: Option<&Secret>) -> Result<(), String> {
        let own = groups.iter().filter_map(|group| group.token.as_ref());
        token.into_iter().chain(own).try_for_each(|secret| secret.read().map(drop))
    }

    /// Paces of unchanged rates continue: new ones would forget what was delivered and is not paid for yet.
    pub(super) fn keep_paces_of(&mut self, before: &Access) {
        for (name, open) in &mut self.groups {
            let pace = before.groups.get(name).and_then(|before| before.pace.clone());
            let rate = |pace: &Option<Pace>| pace.as_ref().map(Pace::lines_per_second);
            if rate(&pace) == rate(&open.pace) {
                open.pace = pace;
            }
        }
    }

    /// The group, if this bearer may use it. Without a right token, nobody learns which groups there are.
    pub(super) fn group(&self, name: &str, caller: Caller<'_>) -> Result<&Open, Denied> {
        let bearer = match caller {
            Caller::Owner => return self.groups.get(name).ok_or(Denied::NoGroup),
            Caller::Bearer(bearer) => bearer,
        };
        match self.groups.get(name).filter(|open| open.is_configured) {
            Some(open) if is_right(open.token.as_ref().or(self.token.as_ref()), bearer) => Ok(open),
            None if is_right(self.token.as_ref(), bearer) => Err(Denied::NoGroup),
            Some(_) | None => Err(Denied::Token),
        }
    }

    pub(super) fn group_of(&self, id: GroupId) -> Option<(&str, &Open)> {
        self.groups.iter().find(|(_, open)| open.id == id).map(|(name, open)| (name.as_str(), open))
    }

    /// The groups without a processor, and whether consumers may lease from them.
    pub(super) fn open(&self) -> impl Iterator<Item = (&str, GroupId, bool)> {
        let open = self.groups.iter().filter(|(_, open)| !open.has_processor);
        open.map(|(name, open)| (name.as_str(), open.id, open.is_configured))
    }

    /// Whether the caller may use any group.
    pub(super) fn is_known(&self, caller: Caller<'_>) -> bool {
        let Caller::Bearer(bearer) = caller else { return true };
        // Every token is compared, so that the time reveals nothing.
        let own = self.groups.values().filter_map(|open| open.token.as_ref());
        let own = own.fold(false, |known, token| is_right(Some(token), bearer) | known);
        is_right(self.token.as_ref(), bearer) | own
    }
}

/// Compares in a time that depends on the lengths only.
fn is_right(token: Option<&Token>, bearer: Option<&str>) -> bool {
    match (token, bearer) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Token(token)), Some(bearer)) => token.as_bytes().ct_eq(bearer.as_bytes()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> (tempfile::NamedTempFile, Secret) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let secret = Secret::File(file.path().to_owned());
        (file, secret)
    }

    #[test]
    fn a_group_is_open_to_its_own_token_or_to_the_common_one() {
        let ((_one, all), (_other, own)) = (secret("for all\n"), secret("for fills\n"));
        let group = |name: &str, token| Arc::new(GroupSettings { token, ..GroupSettings::named(name) });
        let groups = [
            (GroupId(1), group("fills", Some(own))),
            (GroupId(2), group("trades", None)),
            (GroupId(3), group("gone", None)),
        ];
        let access =
            Access::new(&groups, Some(&all), |name| name == "trades", |name| name != "gone").unwrap();
        let of = |name, bearer| {
            access.group(name, Caller::Bearer(bearer)).map(|open| (open.id.0, open.has_processor))
        };
        assert_eq!(of("fills", Some("for fills")), Ok((1, false)));
        assert_eq!(of("fills", Some("for all")), Err(Denied::Token));
        assert_eq!(of("trades", Some("for all")), Ok((2, true)));
        assert_eq!(of("trades", None), Err(Denied::Token));
        assert_eq!(
            of("none", Some("for fills")),
            Err(Denied::Token),
            "it does not learn which groups there are"
        );
        assert_eq!(of("none", Some("for all")), Err(Denied::NoGroup));
        let known =
            ["for all", "for fills", "for"].map(|bearer| access.is_known(Caller::Bearer(Some(bearer))));
        assert_eq!((known, access.is_known(Caller::Bearer(None))), ([true, true, false], false));
        assert!(access.group("fills", Caller::Owner).is_ok(), "who may open the data dir needs none");
        assert!(!format!("{access:?}").contains("for all"), "a token is never shown");
    }

    #[test]
    fn without_a_token_a_group_is_open_to_everyone_on_the_socket() {
        let groups = [(GroupId(1), Arc::new(GroupSettings::named("fills")))];
        let access = Access::new(&groups, None, |_| false, |_| true).unwrap();
        for caller in [Caller::Bearer(None), Caller::Bearer(Some("any")), Caller::Owner] {
            assert!(access.group("fills", caller).is_ok());
            assert_eq!(access.group("none", caller).map(|_| ()), Err(Denied::NoGroup));
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_an_error() {
        let token = Some(Secret::File("/nowhere".into()));
        let groups = [(GroupId(1), Arc::new(GroupSettings { token, ..GroupSettings::named("fills") }))];
        let told = Access::new(&groups, None, |_| false, |_| true).unwrap_err();
        assert!(told.starts_with("the secret in /nowhere cannot be read:"), "{told}");
    }
}
