// Asks mixer as a sidecar does, from nothing but a descriptor set: a denial, a quota, what is left of it, the same again, a
// wrong dictionary, and a Report. Arguments: the set, host, port. Prints one line of JSON for each.

import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.ServiceDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.TextFormat;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import java.io.FileInputStream;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

public final class CheckClient {
  // Indices of the global dictionary.
  private static final int KNOWN = 222;
  private static final int SOURCE_PRINCIPAL = 174;
  private static final int REQUEST_URL_PATH = 203;

  private static ManagedChannel channel;
  private static ServiceDescriptor mixer;

  public static void main(String[] arguments) throws Exception {
    Map<String, FileDescriptor> files = new HashMap<>();
    try (FileInputStream set = new FileInputStream(arguments[0])) {
      // Imports come before who imports them.
      for (FileDescriptorProto file : FileDescriptorSet.parseFrom(set).getFileList()) {
        FileDescriptor[] imports = file.getDependencyList().stream().map(files::get).toArray(FileDescriptor[]::new);
        files.put(file.getName(), FileDescriptor.buildFrom(file, imports));
      }
    }
    mixer = files.get("istio/mixer/v1/mixer.proto").findServiceByName("Mixer");
    channel = ManagedChannelBuilder.forAddress(arguments[1], Integer.parseInt(arguments[2])).usePlaintext().build();
    check("/admin", "1", KNOWN, "");
    check("/", "2", KNOWN, "quotas {key: 'requestcount' value {amount: 7}}");
    check("/", "3", KNOWN, "quotas {key: 'requestcount' value {amount: 7 best_effort: true}}");
    check("/", "3", KNOWN, "quotas {key: 'requestcount' value {amount: 7 best_effort: true}}");
    check("/", "4", KNOWN + 1, "");
    call(
        "Report",
        "attributes {strings {key: %2$d value: -1}} attributes {strings {key: %2$d value: -2}}"
            .formatted(0, REQUEST_URL_PATH)
            + " repeated_attributes_semantics: INDEPENDENT_ENCODING default_words: '/one' default_words: '/two'"
            + " global_word_count: " + KNOWN);
    System.out.println("{\"reported\": 2}");
    channel.shutdownNow().awaitTermination(10, TimeUnit.SECONDS);
  }

  private static void check(String path, String id, int words, String quotas) throws Exception {
    String request =
        """
        attributes {
          words: 'spiffe://mesh.local/ns/default/sa/mallory' words: '%s'
          strings {key: %d value: -1} strings {key: %d value: -2}
        }
        global_word_count: %d deduplication_id: '%s' %s
        """
            .formatted(path, SOURCE_PRINCIPAL, REQUEST_URL_PATH, words, id, quotas);
    DynamicMessage response;
    try {
      response = call("Check", request);
    } catch (StatusRuntimeException error) {
      System.out.printf(
          "{\"error\": \"%s\", \"message\": \"%s\"}%n",
          error.getStatus().getCode(), error.getStatus().getDescription().replace("\"", "'"));
      return;
    }
    DynamicMessage precondition = message(response, "precondition");
    DynamicMessage references = message(precondition, "referenced_attributes");
    List<String> exact = new ArrayList<>();
    for (Object each : (List<?>) get(references, "attribute_matches")) {
      DynamicMessage match = (DynamicMessage) each;
      int name = (Integer) get(match, "name");
      if (get(match, "condition").toString().equals("EXACT")) {
        exact.add('"' + word(references, name) + '"');
      }
    }
    long granted = 0;
    long seconds = 0;
    for (Object each : (List<?>) get(response, "quotas")) {
      DynamicMessage result = message((DynamicMessage) each, "value");
      granted = (Long) get(result, "granted_amount");
      seconds = (Long) get(message(result, "valid_duration"), "seconds");
    }
    DynamicMessage status = message(precondition, "status");
    System.out.printf(
        "{\"code\": %s, \"message\": \"%s\", \"exact\": %s, \"granted\": %d, \"seconds\": %d}%n",
        get(status, "code"), get(status, "message"), exact, granted, seconds);
  }

  private static String word(DynamicMessage references, int index) {
    if (index < 0) {
      return (String) ((List<?>) get(references, "words")).get(-index - 1);
    }
    return index == SOURCE_PRINCIPAL ? "source.principal" : index == REQUEST_URL_PATH ? "request.url_path" : "word " + index;
  }

  private static DynamicMessage call(String name, String text) throws Exception {
    Descriptor input = mixer.findMethodByName(name).getInputType();
    Descriptor output = mixer.findMethodByName(name).getOutputType();
    MethodDescriptor<DynamicMessage, DynamicMessage> method =
        MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(MethodDescriptor.generateFullMethodName(mixer.getFullName(), name))
            .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(input)))
            .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(output)))
            .build();
    DynamicMessage.Builder request = DynamicMessage.newBuilder(input);
    TextFormat.merge(text, request);
    return ClientCalls.blockingUnaryCall(
        channel, method, CallOptions.DEFAULT.withDeadlineAfter(10, TimeUnit.SECONDS), request.build());
  }

  private static Object get(DynamicMessage message, String field) {
    return message.getField(message.getDescriptorForType().findFieldByName(field));
  }

  private static DynamicMessage message(DynamicMessage message, String field) {
    return (DynamicMessage) get(message, field);
  }
}
