package load

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/encoding/protowire"
)

// The names of the fields of a head or a trailer section in which reports are, in lower case.
const (
	Field       = "endpoint-load-metrics"
	BinaryField = "endpoint-load-metrics-bin"
)

// Bounds of reports. What exceeds them says nothing.
const (
	maxReport      = 4 << 10 // bytes of a field
	maxNumber      = 32      // bytes of a number as text
	maxUtilization = 1e6
)

// OfFields returns the utilization in the values of [BinaryField] and [Field]; an empty one says nothing.
func OfFields(binary, report []byte) float64 {
	if len(binary) > 0 {
		return BinaryUtilization(binary)
	}
	return Utilization(report)
}

// Utilization returns the utilization in a value of [Field]: application_utilization, or else cpu_utilization, as Envoy and gRPC
// do. A value has a prefix that says its format: TEXT, JSON or BIN. 0 is not known: there is none, it is no number above 0 and
// within reason, or the value is malformed.
func Utilization(value []byte) float64 {
	format, report, ok := bytes.Cut(value, []byte(" "))
	if !ok || len(value) > maxReport {
		return 0
	}
	switch string(format) {
	case "TEXT":
		return ofText(report)
	case "JSON":
		return ofJSON(report)
	case "BIN":
		return BinaryUtilization(report)
	}
	return 0
}

// BinaryUtilization is Utilization for a value of [BinaryField]: a message OrcaLoadReport in base64, with padding or without
// (gRPC over HTTP2, "Custom-Metadata").
func BinaryUtilization(value []byte) float64 {
	value, _, _ = bytes.Cut(bytes.TrimSpace(value), []byte(",")) // of several fields, the first
	value = bytes.TrimRight(value, "=")
	if len(value) > maxReport {
		return 0
	}
	var memory [maxReport]byte
	n, err := base64.RawStdEncoding.Decode(memory[:], value)
	if err != nil {
		return 0
	}
	return ofMessage(memory[:n])
}

// choose returns the utilization of a report.
func choose(application, cpu float64) float64 {
	for _, u := range [...]float64{application, cpu} {
		if u > 0 && u <= maxUtilization {
			return u
		}
	}
	return 0
}

// ofText reads "cpu_utilization=0.3,named_metrics.queue=7". Older versions of Envoy have a colon for the equals sign.
func ofText(report []byte) float64 {
	var application, cpu float64
	for len(report) > 0 {
		var metric []byte
		metric, report, _ = bytes.Cut(report, []byte(","))
		i := bytes.IndexAny(metric, "=:")
		if i < 0 {
			return 0
		}
		var to *float64
		switch string(bytes.TrimSpace(metric[:i])) {
		case "application_utilization":
			to = &application
		case "cpu_utilization":
			to = &cpu
		default:
			continue
		}
		value, ok := number(bytes.TrimSpace(metric[i+1:]))
		if !ok || *to != 0 {
			return 0
		}
		*to = value
	}
	return choose(application, cpu)
}

// number reads a decimal number.
func number(text []byte) (float64, bool) {
	if len(text) == 0 || len(text) > maxNumber || len(bytes.Trim(text, "0123456789.eE+-")) > 0 {
		return 0, false
	}
	value, err := strconv.ParseFloat(string(text), 64)
	return value, err == nil
}

// ofJSON reads the JSON form of OrcaLoadReport, in which names may have either spelling.
func ofJSON(report []byte) float64 {
	var r struct {
		Application      float64 `json:"application_utilization"`
		ApplicationCamel float64 `json:"applicationUtilization"`
		CPU              float64 `json:"cpu_utilization"`
		CPUCamel         float64 `json:"cpuUtilization"`
	}
	if json.Unmarshal(report, &r) != nil {
		return 0
	}
	return choose(max(r.Application, r.ApplicationCamel), max(r.CPU, r.CPUCamel))
}

// ofMessage reads a message OrcaLoadReport.
func ofMessage(message []byte) float64 {
	const cpuField, applicationField = 1, 9
	var application, cpu float64
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return 0
		}
		message = message[n:]
		if kind == protowire.Fixed64Type && (field == cpuField || field == applicationField) {
			bits, n := protowire.ConsumeFixed64(message)
			if n < 0 {
				return 0
			}
			if message = message[n:]; field == cpuField {
				cpu = math.Float64frombits(bits)
			} else {
				application = math.Float64frombits(bits)
			}
			continue
		}
		if n = protowire.ConsumeFieldValue(field, kind, message); n < 0 {
			return 0
		}
		message = message[n:]
	}
	return choose(application, cpu)
}
