-- Attachments and avatars: what holds a file.

-- Who may see one of these messages may read the file; when the last one goes, so does the file.
create table file_refs (
    file_id uuid not null,
    -- Or the id of a user.
    room_id uuid not null,
    -- 0: the avatar of the room, for its members; -1: that of a user or of a channel, for everybody.
    seq bigint not null,
    primary key (file_id, room_id, seq)
);

create index file_refs_by_message on file_refs (room_id, seq);

-- The File objects that a message shows, as protobuf: they never change once a file is ready, so reading messages reads
-- no other table.
alter table messages add column attachments bytea;
