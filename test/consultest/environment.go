package consultest

import (
	"os"
	"strings"
	"testing"
)

// ClearEnvironment removes the variables of Consul's tools from the environment until t
// ends.
func ClearEnvironment(t *testing.T) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "CONSUL_") {
			t.Setenv(name, "")
		}
	}
}
