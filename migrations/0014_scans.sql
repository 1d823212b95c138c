-- Files that an antivirus has to see first. `files.state` may also be 5: all bytes are stored, and they have not been found
-- clean yet; to everybody this is pending. Older replicas neither serve nor attach what is in a state that they do not know.

-- When a gateway takes it up: a held file to have it scanned, a rejected one to remove its bytes. Later than now while a
-- gateway is at it; absent when there is nothing to do.
alter table files add column due_at bigint;
-- How often it was taken up to be scanned.
alter table files add column scans smallint;

create index files_by_due on files (due_at) where due_at is not null;
