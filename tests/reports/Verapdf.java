import java.io.FileInputStream;
import java.util.HashSet;
import java.util.Set;
import org.verapdf.gf.foundry.VeraGreenfieldFoundryProvider;
import org.verapdf.pdfa.Foundries;
import org.verapdf.pdfa.PDFAParser;
import org.verapdf.pdfa.PDFAValidator;
import org.verapdf.pdfa.flavours.PDFAFlavour;
import org.verapdf.pdfa.results.TestAssertion;
import org.verapdf.pdfa.results.ValidationResult;

/** Checks PDF files against profiles: "Verapdf 3u,ua1 FILE..." prints a line for each broken rule, and one at the end. */
public class Verapdf {
  public static void main(String[] arguments) throws Exception {
    VeraGreenfieldFoundryProvider.initialise();
    for (int i = 1; i < arguments.length; i++) {
      for (String name : arguments[0].split(",")) {
        PDFAFlavour flavour = PDFAFlavour.fromString(name);
        if (flavour == PDFAFlavour.NO_FLAVOUR) throw new IllegalArgumentException("no profile " + name);
        try (PDFAParser parser = Foundries.defaultInstance().createParser(new FileInputStream(arguments[i]), flavour);
            PDFAValidator validator = Foundries.defaultInstance().createValidator(flavour, false)) {
          ValidationResult result = validator.validate(parser);
          Set<String> told = new HashSet<>();
          for (TestAssertion broken : result.getTestAssertions()) {
            String rule = broken.getRuleId().getClause() + "-" + broken.getRuleId().getTestNumber();
            if (told.add(rule)) {
              String said = (broken.getMessage() + " @ " + broken.getLocation().getContext()).replaceAll("\\s+", " ");
              System.out.println(i + "\t" + name + "\t" + rule + " " + said);
            }
          }
          System.out.println(i + "\t" + name + "\tchecked " + result.getTotalAssertions());
        }
      }
    }
  }
}
