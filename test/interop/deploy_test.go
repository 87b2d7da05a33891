package interop

import (
	"errors"
	"io"
	"os"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
	"go.yaml.in/yaml/v3"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	strict "sigs.k8s.io/yaml"

	"sluice/tags"
	"sluice/tags/native"
	"sluice/test/verify"
)

const deploy = "../../examples/deploy/"

func TestComposeReadsItsFile(t *testing.T) {
	project := verify.Result(loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: deploy, ConfigFiles: []types.ConfigFile{{Filename: deploy + "compose.yaml"}}, Environment: types.Mapping{"SLUICE_TOKEN": "t"},
	})).Must(t)
	verify.Equal(t, len(project.Services), 3, "services")
}

func TestKubernetesReadsItsFile(t *testing.T) {
	file := verify.Result(os.Open(deploy + "kubernetes.yaml")).Must(t)
	defer file.Close()
	kinds := map[string]any{"ConfigMap": new(core.ConfigMap), "Deployment": new(apps.Deployment), "Service": new(core.Service)}
	for documents := yaml.NewDecoder(file); ; {
		var document map[string]any
		err := documents.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		verify.NoError(t, err)
		text := verify.Result(yaml.Marshal(document)).Must(t)
		kind, _ := document["kind"].(string)
		err = strict.UnmarshalStrict(text, kinds[kind])
		verify.That(t, err == nil, "%s: %v", kind, err)
		delete(kinds, kind)
	}
	verify.That(t, len(kinds) == 0, "there is none of %v", kinds)
}

// The tags in the job of an app are ones of sluice.
func TestNomadReadsItsFiles(t *testing.T) {
	parseJob(t, "sluice.nomad.hcl")
	routes := 0
	for _, group := range parseJob(t, "app.nomad.hcl").TaskGroups {
		for _, service := range group.Services {
			reading := native.Read(tags.Instance{Service: service.Name, Tags: service.Tags})
			verify.That(t, len(reading.Complaints) == 0, "%s: %v", service.Name, reading.Complaints)
			routes += len(reading.Routes)
		}
	}
	verify.Equal(t, routes, 1, "routes")
}

func parseJob(t *testing.T, name string) *api.Job {
	t.Helper()
	file := verify.Result(os.Open(deploy + name)).Must(t)
	defer file.Close()
	return verify.Result(jobspec2.Parse(name, file)).Must(t)
}
