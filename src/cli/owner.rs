//! `aop owner`: whom a name means here.

use super::args::{ClientArgs, OwnerForgetArgs, OwnerTrustArgs};
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Rows, print_json};
use crate::api::{Owner, Owners, TrustOwner};

/// `aop owner list`.
pub(super) fn list(args: &ClientArgs) -> Result<Exit, Failure> {
    let owners: Owners = Client::new(args)?.get("/v1/owners", &[])?;
    if args.json {
        print_json(&owners)?;
    } else {
        rows(owners.owners).print()?;
    }
    Ok(Exit::Done)
}

/// `aop owner trust`.
pub(super) fn trust(args: &OwnerTrustArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/owners/{}", segment(&args.name)?);
    let trusted = TrustOwner { owner: args.owner.clone() };
    changed(&args.client, Client::new(&args.client)?.put(&path, &trusted)?)
}

/// `aop owner forget`.
pub(super) fn forget(args: &OwnerForgetArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/owners/{}", segment(&args.name)?);
    changed(&args.client, Client::new(&args.client)?.delete(&path)?)
}

fn changed(args: &ClientArgs, owner: Owner) -> Result<Exit, Failure> {
    if args.json {
        print_json(&owner)?;
    } else {
        rows(vec![owner]).print()?;
    }
    Ok(Exit::Done)
}

fn rows(owners: Vec<Owner>) -> Rows {
    let mut rows = Rows::new(&["NAME", "OWNER", "SAID BY", "BARE"]);
    for owner in owners {
        let bare = if owner.bare { "bare" } else { "-" };
        rows.push([owner.name, owner.owner, owner.by.to_string(), bare.into()]);
    }
    rows
}
