-- Mentions.

-- What was written: 16 bytes for each user, and one byte more when all are mentioned. Null without any.
alter table messages add column mentions bytea;

-- What is counted for `me.mentions`: only of messages that stand.
create table mentions (
    room_id uuid not null,
    -- A user, or the room itself for all its members; then there is no row for anybody in particular.
    target uuid not null,
    seq bigint not null,
    -- Nobody is told of what they wrote.
    sender uuid not null,
    primary key (room_id, target, seq)
);
