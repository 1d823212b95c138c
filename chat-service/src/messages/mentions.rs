//! Mentions: how they are stored beside a message, and which rows are counted for `me.mentions`.

use std::collections::HashSet;

use bytes::Bytes;
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{RoomId, UserId},
    on_tx,
};
use uuid::Uuid;

use super::MessageRow;

/// Most mentions of one message, `all` among them.
const MOST: usize = 50;
/// Bytes of an id in `messages.mentions`. What is left over says that all are mentioned.
const ID: usize = 16;

/// How many messages mention a row of `members`, which has this name in the statement, and are not read, as SQL: one
/// index range for the member and one for all.
macro_rules! count_mentions {
    ($m:literal) => {
        concat!(
            "(select count(*) from mentions c
              where c.room_id = ",
            $m,
            ".room_id and c.target in (",
            $m,
            ".user_id, ",
            $m,
            ".room_id)
                 and c.seq > ",
            $m,
            ".read_seq and c.seq > ",
            $m,
            ".visible_from_seq and c.sender <> ",
            $m,
            ".user_id)"
        )
    };
}
pub(crate) use count_mentions;

/// A row of `mentions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MentionRow {
    pub(crate) room: RoomId,
    pub(crate) target: Uuid,
    pub(crate) seq: i64,
    pub(crate) sender: UserId,
}

/// Reads mentions as `messages.mentions` stores them.
///
/// # Errors
/// `bad_request` when they are too many or something in them is no id.
pub(crate) fn from_wire(users: &[Bytes], all: bool) -> Result<Option<Vec<u8>>, Fault> {
    if users.len() + usize::from(all) > MOST {
        return Err(Fault::bad_request(format!("mentions: must hold at most {MOST}")));
    }
    let mut stored = Vec::with_capacity(users.len() * ID + usize::from(all));
    for user in users {
        stored.extend(UserId::from_wire(user, "mentions")?.0.as_bytes());
    }
    stored.extend(all.then_some(1));
    Ok(Some(stored).filter(|stored| !stored.is_empty()))
}

/// The users, and whether all are mentioned, of what is stored.
pub(crate) fn to_wire(stored: Option<&[u8]>) -> (Vec<Bytes>, bool) {
    let ids = stored.unwrap_or_default().chunks_exact(ID);
    let all = !ids.remainder().is_empty();
    (ids.map(Bytes::copy_from_slice).collect(), all)
}

/// What is counted of a message: one row for all, or one for each user.
pub(crate) fn rows(message: &MessageRow) -> Vec<MentionRow> {
    let ids = message.mentions.as_deref().unwrap_or_default().chunks_exact(ID);
    let (room, seq, sender) = (message.room_id, message.seq, message.sender);
    let row = |target| MentionRow { room, target, seq, sender };
    if !ids.remainder().is_empty() {
        return vec![row(room.0)];
    }
    // An id that is the room's is no user: it must not count for all.
    let targets: HashSet<Uuid> =
        ids.filter_map(|id| Uuid::from_slice(id).ok()).filter(|target| *target != room.0).collect();
    targets.into_iter().map(row).collect()
}

/// Writes what is counted of a message. The group commit on PostgreSQL does so in a statement of its own.
pub(crate) async fn insert(tx: &mut Tx, message: &MessageRow) -> sqlx::Result<()> {
    for row in rows(message) {
        on_tx!(tx, c => sqlx::query("insert into mentions (room_id, target, seq, sender) values ($1, $2, $3, $4)")
            .bind(row.room)
            .bind(row.target)
            .bind(row.seq)
            .bind(row.sender)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}

/// Takes a deleted message out of the count.
pub(crate) async fn remove(tx: &mut Tx, message: &MessageRow) -> sqlx::Result<()> {
    for row in rows(message) {
        on_tx!(tx, c => sqlx::query("delete from mentions where room_id = $1 and target = $2 and seq = $3")
            .bind(row.room)
            .bind(row.target)
            .bind(row.seq)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_as_it_was_written() {
        let users: Vec<Bytes> = (0..3).map(|_| UserId::generate().to_wire()).collect();
        for (users, all) in [(&users[..0], false), (&users[..0], true), (&users[..], false), (&users[..], true)] {
            let stored = from_wire(users, all).expect("mentions in good form");
            assert_eq!(to_wire(stored.as_deref()), (users.to_vec(), all));
        }
        assert_eq!(from_wire(&[], false).expect("none"), None);
    }

    #[test]
    fn more_than_fifty_are_refused_with_all_among_them() {
        let users: Vec<Bytes> = (0..50).map(|_| UserId::generate().to_wire()).collect();
        assert!(from_wire(&users, false).is_ok());
        assert!(from_wire(&users, true).is_err());
    }
}
