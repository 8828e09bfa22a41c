//! What the node says about itself while it runs: lines on stderr, the newest of them in memory for `wattle
//! logs`, and, only when an endpoint is configured, traces for an OpenTelemetry collector.
//!
//! Nothing is ever sent without `telemetry.otlp_endpoint`. What peers say appears in fields, escaped and cut.

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs::File;
use std::io::IsTerminal as _;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use serde_bytes::ByteArray;
use tracing::dispatcher::{self, DefaultGuard, Dispatch};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};
use wattle_types::TraceContext;

use crate::api::documents::{LogKind, LogLine, LogSeverity};
use crate::config::LogFormat;
use crate::ring::Ring;

/// Lines kept for `wattle logs`.
const LINES_MAX: usize = 2048;
/// What is kept in memory besides what is shown: enough to tell what happened before somebody looked.
const KEPT: &str = "info,libp2p_swarm=warn,libp2p_mdns=warn,libp2p_kad=error";
/// Which spans are traces. Those of libp2p are many and say nothing to who called.
const TRACED: &str = "off,wattle=info,wattle_net=info,wattle_store=info";
/// Characters of a field in memory: what a peer says must not fill it.
const FIELD_CHARS_MAX: usize = 512;
/// The last traces have this long when the node stops.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("`{filter}` is no log filter: {why}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        why: String,
    },
    /// The exporter of traces could not be built.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(String),
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Puts another filter in place of one.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

/// Where a node logs.
#[derive(Clone, Debug, Default)]
pub enum Output {
    /// On stderr, for the whole process.
    #[default]
    Process,
    /// Into a file, for the threads of this node alone: others are in its process.
    Own(Arc<File>, Threads),
}

/// The threads of one node among several in a process: each that enters logs where that node does.
#[derive(Clone, Debug, Default)]
pub struct Threads(Arc<OnceLock<Dispatch>>);

thread_local! {
    /// Where this thread logs, until it ends.
    static ENTERED: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

impl Threads {
    /// From now on this thread is one of them. Before logging was set up there is nothing to enter.
    pub fn enter(&self) {
        if let Some(dispatch) = self.0.get() {
            let guard = dispatcher::set_default(dispatch);
            ENTERED.with_borrow_mut(|entered| *entered = Some(guard));
        }
    }
}

/// What the node logs, and how that is changed while it runs.
pub struct Telemetry {
    lines: Arc<Ring<LogLine>>,
    reload: Vec<Reload>,
    shown: RwLock<String>,
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logging: for this thread at once when the output is a node's own. Call it inside the runtime that
    /// shall send the traces.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(
        level: &str,
        format: LogFormat,
        endpoint: Option<&str>,
        node: &str,
        output: &Output,
    ) -> Result<Self, TelemetryError> {
        let (shown, reload_shown) = reloadable(read_filter(level)?);
        let (kept, reload_kept) = reloadable(kept_filter(level)?);
        let lines = Arc::new(Ring::new(LINES_MAX));
        let provider = endpoint.map(|endpoint| tracer(endpoint, node)).transpose()?;
        let (writer, colours) = match output {
            Output::Process => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
            Output::Own(file, _) => (BoxMakeWriter::new(Arc::clone(file)), false),
        };
        let lines_out = fmt::layer().with_writer(writer).with_ansi(colours);
        let lines_out: BoxedLayer = match format {
            LogFormat::Text => lines_out.with_filter(shown).boxed(),
            LogFormat::Json => lines_out.json().with_filter(shown).boxed(),
            LogFormat::Journald => {
                lines_out.without_time().with_ansi(false).event_format(Journald).with_filter(shown).boxed()
            }
        };
        let mut layers = vec![lines_out, Remember(Arc::clone(&lines)).with_filter(kept).boxed()];
        if let Some(provider) = &provider {
            let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("wattle"));
            layers.push(traces.with_filter(read_filter(TRACED)?).boxed());
        }
        let subscriber = tracing_subscriber::registry().with(layers);
        match output {
            Output::Process => subscriber.try_init().map_err(|_taken| TelemetryError::Twice)?,
            Output::Own(_, threads) => {
                threads.0.set(Dispatch::new(subscriber)).map_err(|_taken| TelemetryError::Twice)?;
                threads.enter();
            }
        }
        let reload = vec![reload_shown, reload_kept];
        Ok(Self { lines, reload, shown: RwLock::new(level.to_owned()), provider })
    }

    /// Remembers nothing and changes nothing: for tests that share a process.
    #[must_use]
    pub fn none() -> Self {
        Self {
            lines: Arc::new(Ring::new(1)),
            reload: Vec::new(),
            shown: RwLock::new("off".to_owned()),
            provider: None,
        }
    }

    /// The newest lines.
    #[must_use]
    pub const fn lines(&self) -> &Arc<Ring<LogLine>> {
        &self.lines
    }

    /// The filter in use.
    #[must_use]
    pub fn filter(&self) -> String {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is logged from now on, and says what it was before.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`]; nothing changed then.
    pub fn set_filter(&self, filter: &str) -> Result<String, TelemetryError> {
        let parsed = read_filter(filter)?;
        for reload in &self.reload {
            let wrong = |error: reload::Error| TelemetryError::Filter {
                filter: filter.to_owned(),
                why: error.to_string(),
            };
            reload(parsed.clone()).map_err(wrong)?;
        }
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *shown, filter.to_owned()))
    }

    /// Sends the last traces. Blocks for at most half a second.
    pub fn flush(&self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_MAX)
        {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// What is kept: the standard, or what is shown when that is more.
fn kept_filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let shown = read_filter(level)?;
    let more = shown.max_level_hint().is_some_and(|most| most > LevelFilter::INFO);
    if more { Ok(shown) } else { read_filter(KEPT) }
}

fn reloadable(filter: EnvFilter) -> (reload::Layer<EnvFilter, Registry>, Reload) {
    let (layer, handle) = reload::Layer::new(filter);
    (layer, Box::new(move |filter| handle.reload(filter)))
}

/// Every line that is logged passes through all of a filter's parts.
const FILTER_BYTES_MAX: usize = 1024;

fn read_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    if filter.len() > FILTER_BYTES_MAX {
        let filter = filter.chars().take(40).chain(['.', '.']).collect();
        let why = format!("it is longer than {FILTER_BYTES_MAX} bytes");
        return Err(TelemetryError::Filter { filter, why });
    }
    let wrong = |error: tracing_subscriber::filter::ParseError| TelemetryError::Filter {
        filter: filter.to_owned(),
        why: error.to_string(),
    };
    EnvFilter::builder().parse(filter).map_err(wrong)
}

/// The trace that the current span belongs to, for a message that leaves; `None` when nothing is traced.
#[must_use]
pub fn current_trace() -> Option<TraceContext> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceContext {
        trace_id: ByteArray::new(span.trace_id().to_bytes()),
        span_id: ByteArray::new(span.span_id().to_bytes()),
    })
}

/// Reads the `traceparent` of a request (W3C Trace Context, section 3.2); `None` when it cannot be read or the
/// caller does not record.
#[must_use]
pub fn read_traceparent(text: &str) -> Option<TraceContext> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = version == "00" && parts.next().is_none() || version.len() == 2 && version != "ff";
    let sampled = flags.len() == 2 && u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    let lower = [trace, span].iter().all(|hex| hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    if !known || !sampled || !lower || trace.len() != 32 || span.len() != 16 {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    (trace != TraceId::INVALID && span != SpanId::INVALID).then(|| TraceContext {
        trace_id: ByteArray::new(trace.to_bytes()),
        span_id: ByteArray::new(span.to_bytes()),
    })
}

/// Makes `span` a child of the span that caused a message, on whichever node that was.
pub fn continue_trace(span: &Span, trace: &TraceContext) {
    let parent = SpanContext::new(
        TraceId::from_bytes(trace.trace_id.into_array()),
        SpanId::from_bytes(trace.span_id.into_array()),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    // Ignored because without a tracer there is nothing to continue.
    drop(span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent)));
}

fn tracer(endpoint: &str, node: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let traces = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(traces)
        .build()
        .map_err(|error| TelemetryError::Exporter(error.to_string()))?;
    let exporter = InRuntime { exporter: Arc::new(exporter), runtime: tokio::runtime::Handle::current() };
    let resource = Resource::builder()
        .with_service_name("wattle")
        .with_attribute(opentelemetry::KeyValue::new("service.instance.id", node.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// Sends inside our runtime: the batch processor has a thread of its own, where no socket of tokio works.
#[derive(Debug)]
struct InRuntime {
    exporter: Arc<SpanExporter>,
    runtime: tokio::runtime::Handle,
}

impl opentelemetry_sdk::trace::SpanExporter for InRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move {
            opentelemetry_sdk::trace::SpanExporter::export(exporter.as_ref(), batch).await
        });
        sent.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())))
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called before the first export, so nobody else holds the exporter.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            opentelemetry_sdk::trace::SpanExporter::set_resource(exporter, resource);
        }
    }
}

/// Puts every line into the ring.
struct Remember(Arc<Ring<LogLine>>);

impl<S: Subscriber> Layer<S> for Remember {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        self.0.push(|id| LogLine {
            id,
            kind: LogKind::Log,
            ts: Timestamp::now(),
            level: severity(*metadata.level()),
            target: metadata.target().to_owned(),
            message: fields.message,
            fields: fields.others,
        });
    }
}

const fn severity(level: Level) -> LogSeverity {
    match level {
        Level::ERROR => LogSeverity::Error,
        Level::WARN => LogSeverity::Warn,
        Level::INFO => LogSeverity::Info,
        Level::DEBUG => LogSeverity::Debug,
        Level::TRACE => LogSeverity::Trace,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: serde_json::Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = clean(&format!("{value:?}"));
        if field.name() == "message" { self.message = text } else { self.set(field, text.into()) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = clean(value);
        if field.name() == "message" { self.message = text } else { self.set(field, text.into()) }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}

/// A text without control characters, and not too long: it may come from a peer and go to a terminal.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for (index, character) in text.chars().enumerate() {
        match character {
            _ if index >= FIELD_CHARS_MAX => {
                clean.push('…');
                break;
            }
            '\t' => clean.push(' '),
            c if c.is_control() => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    clean
}

/// `<4>target: message`: journald takes the priority from the number (sd-daemon(3)).
struct Journald;

impl<S, N> fmt::FormatEvent<S, N> for Journald
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &fmt::FmtContext<'_, S, N>,
        mut writer: fmt::format::Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match severity(*event.metadata().level()) {
            LogSeverity::Error => 3,
            LogSeverity::Warn => 4,
            LogSeverity::Info => 6,
            LogSeverity::Debug | LogSeverity::Trace => 7,
        };
        write!(writer, "<{priority}>{}: ", event.metadata().target())?;
        fmt::FormatFields::format_fields(context, writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_cannot_forge_a_line_or_fill_the_memory() {
        assert_eq!(clean("a\nERROR forged\u{1b}[31m"), "a\\nERROR forged\\u{1b}[31m");
        assert_eq!(clean(&"x".repeat(10_000)).chars().count(), FIELD_CHARS_MAX + 1);
    }

    #[test]
    fn lines_are_remembered_with_their_fields() {
        let lines = Arc::new(Ring::new(8));
        let subscriber = tracing_subscriber::registry().with(Remember(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(peer = "bob", count = 3, "it broke"));
        let line = lines.after(0).lines.remove(0);
        assert_eq!((line.id, line.level, line.message.as_str()), (1, LogSeverity::Warn, "it broke"));
        assert_eq!((line.fields["peer"].as_str(), line.fields["count"].as_i64()), (Some("bob"), Some(3)));
    }

    #[test]
    fn a_filter_that_would_slow_every_line_is_refused() {
        assert!(read_filter(&"libp2p_kad=debug,".repeat(20)).is_ok());
        let said = read_filter(&"libp2p_kad=debug,".repeat(100)).unwrap_err().to_string();
        assert!(said.contains("1024 bytes") && said.len() < 200, "{said}");
    }

    #[test]
    fn only_a_sound_and_recording_traceparent_is_continued() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let read = read_traceparent(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!((read.trace_id[0], read.span_id[7]), (0x0a, 0x31));
        let zero = "0".repeat(32);
        for bad in [
            String::new(),
            format!("00-{trace}-{span}-00"),
            format!("00-{zero}-{span}-01"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}"),
            format!("00-+{}-{span}-01", &trace[1..]),
        ] {
            assert!(read_traceparent(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn more_is_kept_than_shown_and_never_less() {
        let most = |level| kept_filter(level).unwrap().max_level_hint();
        assert_eq!(most("error"), Some(LevelFilter::INFO));
        assert_eq!(most("warn,libp2p_kad=debug"), Some(LevelFilter::DEBUG));
        assert_eq!(most("trace"), Some(LevelFilter::TRACE));
    }

    #[test]
    fn a_filter_that_cannot_be_read_changes_nothing() {
        let telemetry = Telemetry::none();
        assert!(telemetry.set_filter("info,=/=").is_err());
        assert_eq!(telemetry.filter(), "off");
        assert_eq!(telemetry.set_filter("debug").unwrap(), "off");
        assert_eq!(telemetry.filter(), "debug");
    }
}
