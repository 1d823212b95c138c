-- Resumable uploads: what has come of a file that is pending. A piece counts once its row is here, and its bytes were stored
-- before that.

create table upload_pieces (
    file_id uuid not null,
    -- Bytes before it. Two requests that begin at the same place both store, and one of them counts.
    start bigint not null,
    length bigint not null,
    -- Name of the object that has the bytes.
    object uuid not null,
    primary key (file_id, start)
);
