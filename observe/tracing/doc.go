// Package tracing exports a span for each traced request and one for each of its attempts
// to OpenTelemetry's collector, by OTLP over HTTP. docs/tracing.md describes the spans.
//
// A request carries only its [Span], which says where it is in its trace. What the spans
// say is known when the request has ended, and comes in one value, a [Request]. So a
// request that is not traced costs nothing, and no request waits for the collector.
package tracing
