// grpc-java's interoperation cases with mutual TLS, for which its program has no flags. Arguments: host, port, folder of
// certificates, the server's name, cases. Prints "passed CASE" for each.

import io.grpc.Grpc;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import io.grpc.testing.integration.AbstractInteropTest;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;

public final class Client {
  private static final class Cases extends AbstractInteropTest {
    private final String[] arguments;

    Cases(String[] arguments) {
      this.arguments = arguments;
    }

    @Override
    protected ManagedChannelBuilder<?> createChannelBuilder() {
      File folder = new File(arguments[2]);
      try {
        return Grpc.newChannelBuilderForAddress(
                arguments[0],
                Integer.parseInt(arguments[1]),
                TlsChannelCredentials.newBuilder()
                    .trustManager(new File(folder, "ca.pem"))
                    .keyManager(new File(folder, "cert.pem"), new File(folder, "key.pem"))
                    .build())
            .maxInboundMessageSize(MAX_MESSAGE_SIZE)
            .overrideAuthority(arguments[3]);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }

    @Override
    protected boolean metricsExpected() {
      return false; // they are of a server of grpc-java in the same process
    }
  }

  public static void main(String[] arguments) throws Exception {
    for (String name : Arrays.copyOfRange(arguments, 4, arguments.length)) {
      Cases cases = new Cases(arguments);
      cases.setUp();
      if (name.startsWith("clientCompressed")) {
        AbstractInteropTest.class.getMethod(name, boolean.class).invoke(cases, false); // without the probe
      } else {
        AbstractInteropTest.class.getMethod(name).invoke(cases);
      }
      cases.tearDown();
      System.out.println("passed " + name);
    }
    System.exit(0);
  }
}
