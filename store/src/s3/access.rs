//! How S3 is reached: where, as whom, and with how much patience.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_types::service_config::ServiceConfigKey;

/// What a retry takes from the budget and what a success gives back to it: once a storm has used the budget up,
/// there are six retries to a hundred successes.
const RETRY_COST: u32 = 10;
const SUCCESS_REWARD: f32 = 0.6;
/// Forty retries without a success.
const BUDGET_MAX: usize = 400;
/// Lets a process that gets nothing but failures try again every ten seconds.
const BUDGET_PER_S: f32 = 1.0;

const BACKOFF_INITIAL: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Five tries in about ten seconds.
const START_WAITS: &[Duration] =
    &[Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];

/// Where S3 is and as whom it is asked.
#[derive(Clone)]
pub struct S3Access {
    config: Builder,
    /// `None`: Amazon's, by region.
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) credentials: Option<SharedCredentialsProvider>,
}

/// How long S3 is waited for, and how often it is asked.
#[derive(Debug, Clone, Copy)]
pub struct S3Patience {
    pub connect: Duration,
    /// Until an answer begins.
    pub answer: Duration,
    /// Without a byte moving in either direction.
    pub stall: Duration,
    /// A part gets this much time for its length, on top of `answer`.
    pub send_bytes_per_s_min: u64,
    /// Completing a large upload takes S3 a while.
    pub complete: Duration,
    /// For one call, the first included.
    pub tries_max: u32,
    /// Start-ups wait this long, one after the other, for an S3 that does not answer.
    pub start_waits: &'static [Duration],
}

impl Default for S3Patience {
    fn default() -> Self {
        S3Patience {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(15),
            stall: Duration::from_secs(10),
            send_bytes_per_s_min: 256 * 1024,
            complete: Duration::from_secs(120),
            tries_max: 4,
            start_waits: START_WAITS,
        }
    }
}

impl S3Access {
    /// As every S3 client finds it: the `AWS_*` variables, a profile, the identity of a pod or a machine.
    pub async fn from_environment() -> S3Access {
        let found = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await;
        let endpoint = configured(&found, "AWS_ENDPOINT_URL", "endpoint_url");
        // What S3 clones understand; the library's own default is `when_supported`.
        let request = configured(&found, "AWS_REQUEST_CHECKSUM_CALCULATION", "request_checksum_calculation");
        let response = configured(&found, "AWS_RESPONSE_CHECKSUM_VALIDATION", "response_checksum_validation");
        let mut config = Builder::from(&found);
        if request.is_none() {
            config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        }
        if response.is_none() {
            config = config.response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        S3Access {
            config,
            endpoint: endpoint.or_else(|| found.endpoint_url().map(str::to_owned)),
            region: found.region().map(|region| region.as_ref().to_owned()),
            credentials: found.credentials_provider(),
        }
    }

    /// With everything given.
    pub fn fixed(endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> S3Access {
        let credentials = Credentials::new(access_key, secret_key, None, None, "given");
        let credentials = SharedCredentialsProvider::new(credentials);
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client())
            .endpoint_url(endpoint)
            .region(Region::new(region.to_owned()))
            .credentials_provider(credentials.clone())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        S3Access {
            config,
            endpoint: Some(endpoint.to_owned()),
            region: Some(region.to_owned()),
            credentials: Some(credentials),
        }
    }

    /// The clients of a store; they share connections and the budget of retries.
    pub(super) fn clients(&self, force_path_style: bool, part_bytes: u64, patience: &S3Patience) -> Clients {
        let budget = TokenBucket::builder()
            .capacity(BUDGET_MAX)
            .retry_cost(RETRY_COST)
            .throttling_retry_cost(RETRY_COST)
            .timeout_retry_cost(RETRY_COST)
            .success_reward(SUCCESS_REWARD)
            .refill_rate(BUDGET_PER_S)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(patience.tries_max)
            .with_initial_backoff(BACKOFF_INITIAL)
            .with_max_backoff(BACKOFF_MAX);
        // Downloads have a guard of their own, which goes on where they broke off.
        let stalls = StalledStreamProtectionConfig::enabled()
            .download_enabled(false)
            .grace_period(patience.stall)
            .build();
        let config = self
            .config
            .clone()
            .force_path_style(force_path_style)
            .retry_classifier(TooMany)
            .retry_partition(RetryPartition::custom("store").token_bucket(budget).build())
            .stalled_stream_protection(stalls);
        let client = |attempt: Duration, retries: RetryConfig, correct_clock: bool| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(patience.connect)
                .operation_attempt_timeout(attempt)
                .build();
            let config = config
                .clone()
                .timeout_config(timeouts)
                .retry_config(retries)
                .disable_clock_skew_correction(!correct_clock);
            Client::from_conf(config.build())
        };
        let part = Duration::from_secs(part_bytes / patience.send_bytes_per_s_min.max(1));
        Clients {
            asking: client(patience.answer, retries.clone(), true),
            sending: client(patience.answer + part, retries.clone(), true),
            completing: client(patience.complete, retries, true),
            probing: client(patience.answer.min(Duration::from_secs(5)), RetryConfig::disabled(), false),
        }
    }
}

/// The same client with different patience.
pub(super) struct Clients {
    pub asking: Client,
    pub sending: Client,
    pub completing: Client,
    /// Tries once, and does not set a wrong clock right in silence.
    pub probing: Client,
}

impl Clients {
    /// One for everything.
    pub fn all(client: &Client) -> Clients {
        let client = || client.clone();
        Clients { asking: client(), sending: client(), completing: client(), probing: client() }
    }
}

/// 429, which the library does not know and some servers say in place of S3's own 503.
#[derive(Debug)]
struct TooMany;

impl ClassifyRetry for TooMany {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let status = context.response().map(|response| response.status().as_u16());
        if status == Some(429) { RetryAction::throttling_error() } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "429 Too Many Requests"
    }
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// A value that the library would take from the environment or the profile, `AWS_…_S3` before `AWS_…`.
fn configured(found: &SdkConfig, env: &str, profile: &str) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env(env).profile(profile).build().ok()?;
    found.service_config()?.load_config(key)
}
