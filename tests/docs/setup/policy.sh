# What the page says once, at its beginning: rules in front of the built-in ones, and cases behind the companies.
cat rule.toml built-in.toml > policy.toml
staydown policy check policy.toml
cat companies.toml cases.toml > all-cases.toml
staydown policy test all-cases.toml --policy policy.toml
