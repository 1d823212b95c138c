//! The scripts, each in a file of its own that lists its keys and arguments on top.

use std::sync::LazyLock;

/// A script: its text, and the digest under which Redis runs it.
pub(super) struct Script {
    pub(super) text: String,
    pub(super) digest: String,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            let text = concat!(include_str!("../prelude.lua"), include_str!(concat!("../", $file))).to_owned();
            let digest = redis::Script::new(&text).get_hash().to_owned();
            Script { text, digest }
        });)*
    };
}

scripts! {
    BURY = "bury.lua";
    CLAIM = "claim.lua";
    FINISH = "finish.lua";
    LEASES = "leases.lua";
    LEAVE = "leave.lua";
    RENEW = "renew.lua";
    REVERSE_ADD = "reverse_add.lua";
    REVERSE_REMOVE = "reverse_remove.lua";
    SAID = "said.lua";
    SCHEDULE = "schedule.lua";
    TOPIC = "topic.lua";
    TOUCH = "touch.lua";
    USER = "user.lua";
}
