//! The fields of a form, as browsers send them: a name may come more than once.

use axum::extract::rejection::RawFormRejection;
use axum::extract::{FromRequest, RawForm, Request};
use tonic::Status;

use crate::net::status::bad_field;
use crate::replica::ids::TimeMs;
use crate::report::time;
use crate::web::Problem;

/// Fields of one form. Ours have some dozens at most; the table of hashes on the submit page is the longest.
const FIELDS_MAX: usize = 4_096;

/// The fields, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `a=1&b=2`, from a body or from an address.
    ///
    /// # Errors
    /// There are too many.
    pub fn parse(text: &[u8]) -> Result<Self, Status> {
        let fields: Vec<(String, String)> =
            form_urlencoded::parse(text).take(FIELDS_MAX + 1).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        if fields.len() > FIELDS_MAX {
            return Err(bad_field("form", format!("has more than {FIELDS_MAX} fields")));
        }
        Ok(Self(fields))
    }

    /// The first value of a name without white space around it; empty if there is none.
    pub fn one(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// All values of a name that say anything.
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
    }

    /// Whether a box is ticked.
    pub fn ticked(&self, name: &str) -> bool {
        !self.one(name).is_empty()
    }

    /// A number; 0 where the field is empty.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, name: &str) -> Result<u32, Status> {
        match self.one(name) {
            "" => Ok(0),
            text => text.parse().map_err(|_no| bad_field(name, format!("is {text:?}, expected a number"))),
        }
    }

    /// Words between commas or white space, as in `fr, pt-BR`.
    pub fn words(&self, name: &str) -> Vec<String> {
        let split = |c: char| c == ',' || c == ';' || c.is_whitespace();
        self.one(name).split(split).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// A moment to come, as [`time::moment`] reads it: `2027-01-31`, `90d` or `12h` from `now`; empty or `never` is 0.
    ///
    /// # Errors
    /// It is none, or past.
    pub fn moment(&self, name: &str, now: TimeMs) -> Result<u64, Status> {
        match self.one(name) {
            "" => Ok(0),
            text => time::moment(text, now).map(|at| at.0).map_err(|why| bad_field(name, why)),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let refused = |error: RawFormRejection| Problem::from(bad_field("form", error.to_string()));
        let RawForm(body) = RawForm::from_request(request, state).await.map_err(refused)?;
        Self::parse(&body).map_err(Problem::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_800_000_000_000);

    #[test]
    fn a_name_may_come_more_than_once() {
        let fields = Fields::parse(b"label=a&label=&label=b%20c&x=+1+&y=").unwrap();
        assert_eq!(fields.all("label"), ["a", "b c"]);
        assert_eq!((fields.one("x"), fields.one("y"), fields.one("z")), ("1", "", ""));
        assert_eq!((fields.number("x").unwrap(), fields.number("y").unwrap()), (1, 0));
        assert!(fields.ticked("x") && !fields.ticked("y") && fields.number("label").is_err());
        assert!(Fields::parse("a=1&".repeat(FIELDS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn moments_are_spans_dates_or_never() {
        for (text, expected) in [
            ("", Some(0)),
            ("never", Some(0)),
            ("90d", Some(NOW.0 + 90 * TimeMs::DAY_MS)),
            ("12h", Some(NOW.0 + 12 * 3_600_000)),
            ("2030-01-02", Some(1_893_542_400_000)),
            ("1970-01-02", None),
            ("soon", None),
            ("-1d", None),
            ("99999999999999999999d", None),
        ] {
            let fields = Fields::parse(format!("at={text}").as_bytes()).unwrap();
            assert_eq!(fields.moment("at", NOW).ok(), expected, "{text}");
        }
    }

    #[test]
    fn words_are_split_at_commas_and_spaces() {
        let fields = Fields::parse("languages=fr%2C+pt-BR%3Bde".as_bytes()).unwrap();
        assert_eq!(fields.words("languages"), ["fr", "pt-BR", "de"]);
    }
}
