package structure

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/test/verify"
)

// dialing is what opens connections, or may: names of the packages by their paths. A name with a
// star begins others.
var dialing = map[string][]string{
	"net":        {"Dial*", "Dialer"},
	"crypto/tls": {"Dial*", "Dialer"},
	"net/http":   {"DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm", "Client", "Transport"},
	"syscall":    {"Connect"}, "golang.org/x/sys/unix": {"Connect"},
	"google.golang.org/grpc":                                          {"Dial", "DialContext", "NewClient"},
	"go.etcd.io/etcd/client/v3":                                       {"New", "NewFromURL*"},
	"github.com/hashicorp/consul/api":                                 {"NewClient", "DefaultConfig*"},
	"github.com/miekg/dns":                                            {"Dial*", "Client", "Exchange*"},
	"github.com/caddyserver/certmagic":                                {"New", "NewACMEIssuer", "HTTPS", "Listen", "TLS"},
	"github.com/mholt/acmez/v3/acme":                                  {"Client"},
	"github.com/valyala/fasthttp":                                     {"Dial*", "HostClient", "Client", "Get", "Post", "Do*"},
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp": {"New", "NewClient"},
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc": {"New", "NewClient"},
	"github.com/coder/websocket":                                      {"Dial"},
	"golang.org/x/net/http2":                                          {"Transport"},
	"golang.org/x/net/proxy":                                          {"*"},
}

// dials are the uses of these in the program, and why none of them connects to an address that
// others than the operator have named.
var dials = map[string]string{
	"discovery/locality net.Dialer":             "the constructor of all dialers",
	"discovery/etcd/client clientv3.New":        "only the file names endpoints: see config/rights.go. gRPC's dialer knows HTTPS_PROXY",
	"consul api.NewClient":                      "its HttpClient has the transport of package consul",
	"consul api.DefaultConfig":                  "it reads the environment",
	"certificates/acme certmagic.New":           "only the file names authorities",
	"certificates/acme certmagic.NewACMEIssuer": "only the file names authorities",
	"certificates/acme/dns01 dns.Client":        "its Dialer is of discovery/locality",
	"healthcheck grpc.NewClient":                "its context dialer is of package healthcheck",
	"observe/tracing otlptracehttp.NewClient":   "only the file names a collector",
	"proxy/upstream fasthttp.HostClient":        "a pool of slots, whose Do is never called",
}

// mustHave is what a literal of a type must set, else it has a dialer of its own.
var mustHave = map[string]string{"net/http.Client": "Transport", "net/http.Transport": "DialContext"}

// Whoever opens a connection must say who has named the address: with locality.NewDialer, or below,
// with the reason.
func TestDialersKnowWhoNamedTheAddress(t *testing.T) {
	used := make(map[string]bool)
	for name := range importsOfProgram(t) {
		fset := token.NewFileSet()
		for _, parsed := range filesOf(t, fset, name) {
			imported := make(map[string]string) // paths by the names in this file
			for _, i := range parsed.Imports {
				at := verify.Result(strconv.Unquote(i.Path.Value)).Must(t)
				switch {
				case i.Name != nil:
					imported[i.Name.Name] = at
				case at == "go.etcd.io/etcd/client/v3":
					imported["clientv3"] = at
				default:
					imported[path.Base(strings.TrimSuffix(at, "/v3"))] = at
				}
			}
			d := dialers{t, fset, name, imported, used, make(map[ast.Expr]bool)}
			ast.Inspect(parsed, d.inspect)
		}
	}
	for key := range dials {
		verify.That(t, used[key], "dials has %q, which does not exist", key)
	}
}

// dialers are those of a file.
type dialers struct {
	t        *testing.T
	fset     *token.FileSet
	room     string
	imported map[string]string
	used     map[string]bool
	complete map[ast.Expr]bool // types of literals that have what they must, and types that are only named
}

func (d *dialers) inspect(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.StarExpr: // a pointer to a value that something else has made
		d.complete[n.X] = true
	case *ast.Field:
		d.complete[n.Type] = !d.is(n.Type, "net", "Dialer") // a value, which may be zero
	case *ast.FuncType:
		for _, field := range n.Params.List {
			d.complete[field.Type] = true
		}
		if n.Results != nil {
			for _, field := range n.Results.List {
				d.complete[field.Type] = true
			}
		}
	case *ast.CompositeLit:
		of := d.path(n.Type) + "." + nameOf(n.Type)
		d.complete[n.Type] = mustHave[of] != "" && slices.ContainsFunc(n.Elts, func(e ast.Expr) bool {
			kv, ok := e.(*ast.KeyValueExpr)
			return ok && isNamed(kv.Key, mustHave[of])
		})
	case *ast.SelectorExpr:
		names := dialing[d.path(n)]
		if d.complete[n] || !slices.ContainsFunc(names, func(name string) bool {
			start, begins := strings.CutSuffix(name, "*")
			return n.Sel.Name == name || begins && strings.HasPrefix(n.Sel.Name, start)
		}) {
			return true
		}
		key := d.room + " " + n.X.(*ast.Ident).Name + "." + n.Sel.Name
		d.used[key] = true
		verify.That(d.t, dials[key] != "", "%s: %s: open connections with locality.NewDialer, which knows who has named the address", d.fset.Position(n.Pos()), key)
	}
	return true
}

// path returns the path of the package of pkg.Name; "": it is none.
func (d *dialers) path(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if of, ok := s.X.(*ast.Ident); ok {
			return d.imported[of.Name]
		}
	}
	return ""
}

func (d *dialers) is(e ast.Expr, of, name string) bool { return d.path(e) == of && nameOf(e) == name }

func nameOf(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

func isNamed(e ast.Expr, name string) bool {
	i, ok := e.(*ast.Ident)
	return ok && i.Name == name
}
