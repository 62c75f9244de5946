import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.Future;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Writes with AWS's Kinesis Producer Library what stands in lines of standard input: partition key, explicit hash key
 * ("-": none) and data, key and data in hex.  Each aggregate holds at most as many records as said.  Prints shard and
 * sequence number of each.
 *
 * java -cp JARS Kpl.java PORT REGION KEY SECRET STREAM MOST (the emulator's, TLS)
 */
class Kpl {
	public static void main(String[] args) throws Exception {
		KinesisProducerConfiguration config = new KinesisProducerConfiguration()
			.setKinesisEndpoint("127.0.0.1").setKinesisPort(Long.parseLong(args[0]))
			.setStsEndpoint("127.0.0.1").setStsPort(Long.parseLong(args[0]))
			.setCloudwatchEndpoint("127.0.0.1").setCloudwatchPort(Long.parseLong(args[0]))
			.setVerifyCertificate(false).setRegion(args[1]).setMetricsLevel("none").setLogLevel("warning")
			.setCredentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create(args[2], args[3])))
			.setAggregationMaxCount(Long.parseLong(args[5])).setRecordMaxBufferedTime(2000).setRecordTtl(60000).setRequestTimeout(30000);
		KinesisProducer producer = new KinesisProducer(config);
		String stream = args[4];

		// until it knows the shards it aggregates nothing
		producer.addUserRecord(stream, "first", ByteBuffer.wrap(new byte[] {0})).get();
		Thread.sleep(4000);

		List<Future<UserRecordResult>> results = new ArrayList<>();
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
		for (String line = in.readLine(); line != null; line = in.readLine()) {
			String[] fields = line.split(" ", -1);
			String key = new String(HexFormat.of().parseHex(fields[0]), StandardCharsets.UTF_8);
			ByteBuffer data = ByteBuffer.wrap(HexFormat.of().parseHex(fields[2]));
			results.add(fields[1].equals("-") ? producer.addUserRecord(stream, key, data) : producer.addUserRecord(stream, key, fields[1], data));
		}
		producer.flushSync();
		for (Future<UserRecordResult> r : results)
			System.out.println(r.get().getShardId() + " " + r.get().getSequenceNumber());
		producer.destroy();
	}
}
