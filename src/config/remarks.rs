//! What an operator may decide, and probably has not meant.

use super::{Config, ListenAddress, Settings, misspelt_variables};

impl Settings {
    /// What is worth a warning in these, and in what has been made of them; each a sentence.
    pub fn remarks(&self, config: &Config) -> Vec<String> {
        let mut remarks: Vec<String> = misspelt_variables()
            .into_iter()
            .map(|(name, meant)| format!("{name} is in the environment, and means nothing: is it to be {meant}?"))
            .collect();
        if config.state_file.is_none() {
            remarks.push("revocations and blocks end with the process: state_file would keep them".to_owned());
        }
        if config.proxy_protocol
            && config.trusted_proxies.is_empty()
            && matches!(self.options.listen, ListenAddress::Tcp(_))
        {
            let nobody = "proxy_protocol without trusted_proxy: no address is believed, so nobody gets in over TCP";
            remarks.push(nobody.to_owned());
        }
        for issuer in &config.issuers {
            if (issuer.jwks_url.is_some() || issuer.discover) && issuer.audience.is_empty() {
                let name = issuer.issuer.as_deref().unwrap_or_default();
                remarks.push(format!("no audience for {name}: tokens that it made for others are accepted too"));
            }
        }
        remarks
    }
}
