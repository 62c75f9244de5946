import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Acls SERVERS PRINCIPAL add|remove [TYPE PATTERN NAME OPERATION]…: what a principal may do, from anywhere. */
public class Acls {
    public static void main(String[] args) throws Exception {
        List<AclBinding> bindings = new ArrayList<>();
        for (int i = 3; i + 3 < args.length; i += 4)
            bindings.add(new AclBinding(new ResourcePattern(ResourceType.valueOf(args[i]), args[i + 2], PatternType.valueOf(args[i + 1])),
                new AccessControlEntry(args[1], "*", AclOperation.valueOf(args[i + 3]), AclPermissionType.ALLOW)));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            if (args[2].equals("add"))
                admin.createAcls(bindings).all().get();
            else
                admin.deleteAcls(bindings.stream().map(AclBinding::toFilter).toList()).all().get();
        }
    }
}
