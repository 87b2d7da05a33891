package proxy

import (
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// loadMessage is an OrcaLoadReport with this application_utilization.
func loadMessage(utilization float64) []byte {
	message := []byte{9<<3 | 1}
	for i := range 8 {
		message = append(message, byte(math.Float64bits(utilization)>>(8*i)))
	}
	return message
}

// The load that a peer reports, in any form, head or trailer section, is known with the answer, and does not reach the client;
// where it is switched off the client gets it.
func TestReportedLoad(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, on := range []bool{true, false} {
			t.Run(fmt.Sprintf("HTTP/2 to peers %v, on %v", http2, on), func(t *testing.T) {
				t.Parallel()
				p := startProxyTo(t, http2, Options{}, func(w http.ResponseWriter, r *http.Request) {
					name, value := r.URL.Query().Get("name"), r.URL.Query().Get("value")
					if r.URL.Path == "/trailer" {
						w.WriteHeader(200)
						w.(http.Flusher).Flush()
						name = http.TrailerPrefix + name
					}
					w.Header().Set(name, value)
				})
				transport := p.NewTransport(someTransport)
				if http2 {
					transport = p.NewHTTP2Transport(someTransport)
				}
				p.reconfigure(balancer.Options{NewTransport: transport, ReportedLoad: on})
				p.setService(route.Service{ReportedLoad: on})
				peer := p.pool.Snapshot().All[0]
				text := func(u float64) string { return fmt.Sprintf("TEXT cpu_utilization=%v", u) }
				binary := func(u float64) string { return base64.StdEncoding.EncodeToString(loadMessage(u)) }
				utilization := 0.
				for _, path := range []string{"/head", "/trailer"} {
					for name, write := range map[string]func(float64) string{"Endpoint-Load-Metrics": text, "Endpoint-Load-Metrics-Bin": binary} {
						utilization += .125
						request := verify.Result(http.NewRequest("GET", "http://"+p.address+path, nil)).Must(t)
						query := request.URL.Query()
						query.Set("name", name)
						query.Set("value", write(utilization))
						request.URL.RawQuery = query.Encode()
						answer := verify.Result(http.DefaultClient.Do(request)).Must(t)
						verify.Result(io.ReadAll(answer.Body)).Must(t)
						answer.Body.Close()
						got, _ := peer.ReportedLoad()
						passed := answer.Header.Get(name) + answer.Trailer.Get(name)
						if on {
							verify.That(t, got == utilization && passed == "", "%s %s: load %v, want %v; the client got %q", path, name, got, utilization, passed)
						} else {
							verify.That(t, got == 0 && (passed == write(utilization) || path == "/trailer"), "%s %s: load %v; the client got %q", path, name, got, passed)
						}
					}
				}
			})
		}
	}
}

// A server of gRPC reports its load in the trailer section, also with an error, which is the whole answer.
func TestReportedLoadOfGRPC(t *testing.T) {
	t.Parallel()
	o := startGRPCOrigin(t)
	p := startProxyToH2C(t, o.address)
	client := dialGRPC(t, p.address)
	peer := p.pool.Snapshot().All[0]
	for _, on := range []bool{false, true} {
		p.reconfigure(balancer.Options{NewTransport: p.NewHTTP2Transport(someTransport), ReportedLoad: on})
		p.setService(route.Service{Timeouts: patientTimeouts(), ReportedLoad: on})
		for i, code := range []int32{0, 8} {
			utilization := float64(i+1) / 4
			o.load.Store(string(loadMessage(utilization)))
			request := unary(10, 10)
			if code != 0 {
				request.ResponseStatus = &grpc_testing.EchoStatus{Code: code}
			}
			var header, trailer metadata.MD
			_, err := client.UnaryCall(patientContext(t), request, grpc.Header(&header), grpc.Trailer(&trailer))
			verify.Equal(t, err != nil, code != 0, "a call fails")
			passed := len(header.Get("endpoint-load-metrics-bin")) + len(trailer.Get("endpoint-load-metrics-bin"))
			got, _ := peer.ReportedLoad()
			if !on {
				verify.That(t, got == 0 && passed == 1, "load %v; the client got %v, %v", got, header, trailer)
				continue
			}
			verify.Equal(t, got, utilization, "load after status %d", code)
			verify.That(t, passed == 0, "the client got %v, %v", header, trailer)
		}
	}
}
