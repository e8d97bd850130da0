// Asks mixer as a sidecar does: a denial, a quota, what is left of it, the same again, a wrong dictionary, and a Report.
// Argument: host:port. Prints one line of JSON for each.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	mixer "meshwright.io/check/gen"
)

// Indices of the global dictionary.
const (
	known           = 222
	sourcePrincipal = 174
	requestURLPath  = 203
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	defer connection.Close()
	out := json.NewEncoder(os.Stdout)

	call := func(method string, request, response proto.Message) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return connection.Invoke(ctx, "/istio.mixer.v1.Mixer/"+method, request, response)
	}
	attributes := func(principal, path string) *mixer.CompressedAttributes {
		return &mixer.CompressedAttributes{
			Words:   []string{principal, path},
			Strings: map[int32]int32{sourcePrincipal: -1, requestURLPath: -2},
		}
	}
	check := func(path, id string, words uint32, quotas map[string]*mixer.CheckRequest_QuotaParams) {
		response := &mixer.CheckResponse{}
		err := call("Check", &mixer.CheckRequest{
			Attributes:      attributes("spiffe://mesh.local/ns/default/sa/mallory", path),
			GlobalWordCount: words,
			DeduplicationId: id,
			Quotas:          quotas,
		}, response)
		if err != nil {
			said := status.Convert(err)
			must(out.Encode(map[string]any{"error": name(said), "message": said.Message()}))
			return
		}
		exact := []string{}
		references := response.GetPrecondition().GetReferencedAttributes()
		for _, match := range references.GetAttributeMatches() {
			word := map[int32]string{sourcePrincipal: "source.principal", requestURLPath: "request.url_path"}[match.GetName()]
			if match.GetName() < 0 {
				word = references.GetWords()[-match.GetName()-1]
			}
			if match.GetCondition() == mixer.ReferencedAttributes_EXACT {
				exact = append(exact, word)
			}
		}
		quota := response.GetQuotas()["requestcount"]
		must(out.Encode(map[string]any{
			"code":    response.GetPrecondition().GetStatus().GetCode(),
			"message": response.GetPrecondition().GetStatus().GetMessage(),
			"exact":   exact,
			"granted": quota.GetGrantedAmount(),
			"seconds": quota.GetValidDuration().GetSeconds(),
		}))
	}
	wanted := func(amount int64, bestEffort bool) map[string]*mixer.CheckRequest_QuotaParams {
		return map[string]*mixer.CheckRequest_QuotaParams{"requestcount": {Amount: amount, BestEffort: bestEffort}}
	}

	check("/admin", "1", known, nil)
	check("/", "2", known, wanted(7, false))
	check("/", "3", known, wanted(7, true))
	check("/", "3", known, wanted(7, true))
	check("/", "4", known+1, nil)
	must(call("Report", &mixer.ReportRequest{
		Attributes: []*mixer.CompressedAttributes{
			{Strings: map[int32]int32{requestURLPath: -1}}, {Strings: map[int32]int32{requestURLPath: -2}},
		},
		RepeatedAttributesSemantics: mixer.ReportRequest_INDEPENDENT_ENCODING,
		DefaultWords:                []string{"/one", "/two"},
		GlobalWordCount:             known,
	}, &mixer.ReportResponse{}))
	must(out.Encode(map[string]int{"reported": 2}))
}

func name(said *status.Status) string {
	if said.Code() == 13 {
		return "INTERNAL"
	}
	return said.Code().String()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
