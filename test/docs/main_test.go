//go:build unix

package docs

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/cli"
	"sluice/test/parallel"
)

// The addresses that sluice has by default, for this session.
const envListen, envAdmin = "DOCS_LISTEN", "DOCS_ADMIN"

// TestMain also makes the test binary another program, when a link to it has the name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sluice":
		os.Exit(cli.Run(withDefaults(os.Args[1:]), os.Stdout, os.Stderr))
	case "app":
		fmt.Fprintln(os.Stderr, runApp(os.Args[1:]))
		os.Exit(1)
	}
	parallel.SetDefault(16) // the commands mostly wait
	os.Exit(run(m))
}

// programs is a directory for what is built.
var programs string

func run(m *testing.M) (status int) {
	var err error
	if programs, err = os.MkdirTemp("", "sluice-docs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	return m.Run()
}

// withDefaults adds the addresses of the session to the arguments of sluice, where the default of
// sluice would be used.
func withDefaults(args []string) []string {
	if len(args) == 0 || slices.Contains([]string{"check", "doctor", "hash-password", "help", "register", "version"}, args[0]) || slices.Contains(args, "--help") {
		return args
	}
	var config []byte
	if n := slices.Index(args, "--config"); n > 0 && n+1 < len(args) {
		config, _ = os.ReadFile(args[n+1]) // an error is sluice's to report
	}
	has := func(flag, key string) bool {
		return slices.Contains(args, flag) || strings.Contains(string(config), key)
	}
	if !has("--admin", "admin:") {
		end := len(args)
		if command := slices.Index(args, "--"); command > 0 { // what follows is another program's
			end = command
		}
		args = slices.Insert(args, end, "--admin", os.Getenv(envAdmin))
	}
	if args[0] == "run" && !has("--listen", "listeners:") {
		args = append(args, "--listen", os.Getenv(envListen))
	}
	return args
}

// runApp serves on a port, always with the same status: app PORT [STATUS [STATUS-OF-/health]].
func runApp(args []string) error {
	status := []int{http.StatusOK, http.StatusOK}
	for n, text := range args[1:] {
		var err error
		if status[n], err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	return http.ListenAndServe("127.0.0.1:"+args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(status[1])
			return
		}
		w.WriteHeader(status[0])
		fmt.Fprintf(w, "the app answers %s\n", r.URL.Path)
	}))
}
