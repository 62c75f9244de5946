import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * Reads a stream from its beginning with AWS's Kinesis Client Library and prints a line for each record: shard, key
 * and data in hex.  Ends when its standard input does.
 *
 * java -cp JARS Kcl.java KINESIS_URL DYNAMODB_URL REGION KEY SECRET STREAM
 */
class Kcl {
	static class Printer implements ShardRecordProcessor {
		private String shard;

		@Override
		public void initialize(InitializationInput input) {
			shard = input.shardId();
		}

		@Override
		public void processRecords(ProcessRecordsInput input) {
			StringBuilder out = new StringBuilder();
			for (KinesisClientRecord r : input.records()) {
				byte[] data = new byte[r.data().remaining()];
				r.data().duplicate().get(data);
				out.append(shard).append(' ').append(HexFormat.of().formatHex(r.partitionKey().getBytes(StandardCharsets.UTF_8))).append(' ')
					.append(HexFormat.of().formatHex(data)).append('\n');
			}
			synchronized (Kcl.class) {
				System.out.print(out);
				System.out.flush();
			}
		}

		@Override
		public void leaseLost(LeaseLostInput input) {
		}

		@Override
		public void shardEnded(ShardEndedInput input) {
			try {
				input.checkpointer().checkpoint();
			} catch (Exception e) {
				throw new IllegalStateException(e);
			}
		}

		@Override
		public void shutdownRequested(ShutdownRequestedInput input) {
		}
	}

	public static void main(String[] args) throws Exception {
		StaticCredentialsProvider keys = StaticCredentialsProvider.create(AwsBasicCredentials.create(args[3], args[4]));
		Region region = Region.of(args[2]);
		KinesisAsyncClient kinesis = KinesisAsyncClient.builder().endpointOverride(URI.create(args[0])).region(region).credentialsProvider(keys)
			.httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1)).build();
		DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder().endpointOverride(URI.create(args[1])).region(region).credentialsProvider(keys).build();
		CloudWatchAsyncClient cloudwatch = CloudWatchAsyncClient.builder().endpointOverride(URI.create(args[1])).region(region).credentialsProvider(keys).build();
		ConfigsBuilder c = new ConfigsBuilder(
			new SingleStreamTracker(args[5], InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON)),
			"judge-" + args[5], kinesis, dynamo, cloudwatch, "worker", Printer::new);
		Scheduler scheduler = new Scheduler(c.checkpointConfig(), c.coordinatorConfig().parentShardPollIntervalMillis(500L)
			.clientVersionConfig(CoordinatorConfig.ClientVersionConfig.CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X), c.leaseManagementConfig(), c.lifecycleConfig(),
			c.metricsConfig().metricsFactory(new NullMetricsFactory()), c.processorConfig(),
			c.retrievalConfig().retrievalSpecificConfig(new PollingConfig(args[5], kinesis).idleTimeBetweenReadsInMillis(200)));
		Thread thread = new Thread(scheduler);
		thread.setDaemon(true);
		thread.start();
		while (System.in.read() >= 0) {
		}
		scheduler.startGracefulShutdown().get(20, TimeUnit.SECONDS);
		System.exit(0);
	}
}
