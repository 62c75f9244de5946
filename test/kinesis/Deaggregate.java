import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import software.amazon.kinesis.retrieval.AggregatorUtil;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/**
 * What AWS's Kinesis Client Library makes of records of a stream: lines of partition key and data in hex; for each a line
 * with its user records: key, explicit hash key ("-": none), data, sub-sequence number, aggregated or not.
 *
 * java -cp JARS Deaggregate.java
 */
class Deaggregate {
	static String hex(ByteBuffer data) {
		byte[] bytes = new byte[data.remaining()];
		data.duplicate().get(bytes);
		return HexFormat.of().formatHex(bytes);
	}

	public static void main(String[] args) throws Exception {
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
		for (String line = in.readLine(); line != null; line = in.readLine()) {
			String[] fields = line.split(" ", -1);
			KinesisClientRecord record = KinesisClientRecord.builder().sequenceNumber("1")
				.partitionKey(new String(HexFormat.of().parseHex(fields[0]), StandardCharsets.UTF_8))
				.data(ByteBuffer.wrap(HexFormat.of().parseHex(fields[1]))).build();
			StringBuilder out = new StringBuilder();
			for (KinesisClientRecord r : new AggregatorUtil().deaggregate(List.of(record)))
				out.append(HexFormat.of().formatHex(r.partitionKey().getBytes(StandardCharsets.UTF_8))).append(' ')
					.append(r.explicitHashKey() == null ? "-" : r.explicitHashKey()).append(' ').append(hex(r.data())).append(' ')
					.append(r.subSequenceNumber()).append(' ').append(r.aggregated()).append(' ');
			System.out.println(out.toString().trim());
		}
	}
}
