-- Servers and user mappings of type 'kinesis': what is accepted, and what a mistake is told.
CREATE SERVER seoul TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'ap-northeast-2');
CREATE SERVER local TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream
  OPTIONS (region 'us-east-1', endpoint 'http://127.0.0.1:4568', sts_endpoint 'http://localhost:5000');
CREATE SERVER vpc TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream
  OPTIONS (region 'eu-west-1', endpoint 'https://10.0.0.7', proxy 'http://proxy.example.com:3128');
CREATE USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (access_key_id 'AKIDEXAMPLE', secret_access_key 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (ADD session_token 'abc/+=');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (DROP session_token, ADD role_arn 'arn:aws:iam::123456789012:role/path/reader', ADD external_id 'us-1');
CREATE USER MAPPING FOR PUBLIC SERVER seoul OPTIONS (role_arn 'arn:aws-cn:iam::123456789012:role/reader');
CREATE USER MAPPING FOR CURRENT_USER SERVER vpc;

-- streams
CREATE STREAM events (v int) SERVER seoul;
CREATE FOREIGN TABLE others (v int, place text OPTIONS (meta 'position')) SERVER seoul OPTIONS (stream 'arn:aws:kinesis:eu-west-1:123456789012:stream/events');
CREATE STREAM wrong (v int) SERVER seoul OPTIONS (stream 'a b');
CREATE STREAM wrong (v int) SERVER seoul OPTIONS (stream 'arn:aws:kinesis:eu-west-1:123456789012:stream/a"b');
CREATE STREAM wrong (v int) SERVER seoul OPTIONS (stream 'arn:aws:firehose:eu-west-1:123456789012:stream/events');
CREATE STREAM wrong (v int, place numeric OPTIONS (meta 'position')) SERVER seoul;
CREATE STREAM wrong (v int) SERVER seoul OPTIONS (parallelism '2');
CREATE STREAM wrong (v int) SERVER seoul OPTIONS (fan_out 'true');
CREATE STREAM wrong (v int) SERVER seoul OPTIONS (compression 'gzip');
DROP STREAM events, others;

-- servers
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream;
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'Seoul');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', "bootstrap.servers" 'b:9092');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', role_arn 'arn:aws:iam::123456789012:role/r');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', access_key_id 'AK');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'kinesis.eu-west-1.amazonaws.com');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'http://kinesis.example.com');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'https://user:password@example.com');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'https://example.com/path');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'https://2852039166');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', sts_endpoint 'https://169.254.169.254');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', proxy 'socks5://proxy');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', "ssl.ca.pem" 'x');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', "ssl.ca.location" 'ca.pem');
ALTER SERVER seoul OPTIONS (DROP region);

-- user mappings; values are never shown
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (DROP secret_access_key);
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (DROP role_arn);
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (SET secret_access_key E'copied with its line end\n');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (SET access_key_id '');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (SET role_arn 'reader');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (SET role_arn 'arn:aws:iam::123456789012:user/reader');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (SET external_id 'a b');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (ADD password 'x');
ALTER USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (ADD region 'eu-west-1');
CREATE USER MAPPING FOR CURRENT_USER SERVER local OPTIONS (secret_access_key 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER local OPTIONS (session_token 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER local OPTIONS (external_id 'xy');
SELECT srvname, usename, umoptions FROM pg_user_mappings ORDER BY 1, 2;

-- the machine's credentials: for servers of superusers, and of members of a role that the administrator names
CREATE ROLE kinesis_user;
GRANT CREATE ON SCHEMA public TO kinesis_user;
SET ROLE kinesis_user;
CREATE SERVER theirs TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1');
CREATE SERVER wrong TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', "ssl.ca.location" '/etc/passwd');
CREATE USER MAPPING FOR kinesis_user SERVER theirs OPTIONS (access_key_id 'AK', secret_access_key 'x');
CREATE USER MAPPING FOR PUBLIC SERVER theirs OPTIONS (role_arn 'arn:aws:iam::123456789012:role/r');
ALTER USER MAPPING FOR kinesis_user SERVER theirs OPTIONS (DROP access_key_id, DROP secret_access_key);
RESET ROLE;
DROP OWNED BY kinesis_user CASCADE;
DROP ROLE kinesis_user;
DROP SERVER seoul, local, vpc CASCADE;
