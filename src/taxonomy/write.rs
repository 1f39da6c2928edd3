//! A taxonomy as a file to go on with: the built-in one has none.

use crate::replica::taxonomy::{Label, Named, Taxonomy};

/// The file of a taxonomy, without comments.
pub fn to_toml(taxonomy: &Taxonomy) -> String {
    let named = Named::parse(taxonomy.named());
    let (name, version) = named.map_or_else(|| ("taxonomy".to_owned(), 1), |named| (named.name, named.version));
    let mut text = format!("name = {}\nversion = {version}\n", quoted(&name));
    for (number, label) in taxonomy.labels() {
        text.push_str(&format!("\n[[label]]\nnumber = {number}\n{}", fields(label, taxonomy)));
    }
    text
}

fn fields(label: &Label, taxonomy: &Taxonomy) -> String {
    let mut text = format!("name = {}\nfacet = {}\n", quoted(&label.name), quoted(label.facet.name()));
    if let Some(parent) = label.parent {
        text.push_str(&format!("parent = {}\n", quoted(&taxonomy.name(parent))));
    }
    if !label.formerly.is_empty() {
        let names: Vec<_> = label.formerly.iter().map(|name| quoted(name)).collect();
        text.push_str(&format!("formerly = [{}]\n", names.join(", ")));
    }
    if label.retired {
        text.push_str("retired = true\n");
    }
    if !label.titles.is_empty() {
        let titles = label.titles.iter().map(|(tag, title)| format!("{tag} = {}", quoted(title)));
        text.push_str(&format!("title = {{ {} }}\n", titles.collect::<Vec<_>>().join(", ")));
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
